# A boot sector that prints one line by the BIOS (INT 10h, teletype) and ends the machine through the exit port with
# status 33 (0x10 << 1 | 1). It is no guest that is loaded at 0x1000: a firmware loads it at 0x7C00.
    .code16
    .global _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    call 1f
1:  pop %si
    add $message - 1b, %si
    cld
2:  lodsb
    test %al, %al
    jz 3f
    mov $0x0E, %ah
    xor %bx, %bx
    int $0x10
    jmp 2b
3:  mov $0x10, %al
    out %al, $0xF4
    cli
    hlt
message:
    .asciz "The boot sector is here.\r\n"
    .org 510
    .word 0xAA55
