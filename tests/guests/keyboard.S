# Sleeps in HLT until the keyboard controller's interrupt (IRQ 1) brings scan codes, then resets the machine through
# it: 0xFE to port 0x64. Needs the in-kernel interrupt controller.
# Parameters: vcpus (ignored), count (COUNT, 3: scan codes to receive, at most 256).
# Results: +4 scan codes received, +8 interrupts, +12 1 once it sleeps; the codes from 0x9100 on.
.include "common.inc"
    guest
    param count, COUNT, 3
    begin16
    movw $on_key, 0x09 * 4
    movw $0, 0x09 * 4 + 2
    xor %eax, %eax
    mov %eax, RESULTS + 4
    mov %eax, RESULTS + 8
    mov $0x11, %al                      # 8259A: edge, cascaded, vector 0x08
    out %al, $0x20
    mov $0x08, %al
    out %al, $0x21
    mov $4, %al
    out %al, $0x21
    mov $1, %al
    out %al, $0x21
    mov $0xFD, %al                      # IRQ 1
    out %al, $0x21

    mov $0x60, %al                      # the command byte: interrupt on, keyboard on
    out %al, $0x64
    mov $0x05, %al
    out %al, $0x60
    movl $1, RESULTS + 12

1:  cli
    mov count, %eax
    cmp %eax, RESULTS + 4
    jae 2f
    sti
    hlt
    jmp 1b
2:  movl $1, RESULTS
    mov $0xFE, %al
    out %al, $0x64
3:  cli
    hlt
    jmp 3b

on_key:
    push %ax
    push %bx
    incl RESULTS + 8
1:  in $0x64, %al
    test $1, %al
    jz 2f
    in $0x60, %al
    mov RESULTS + 4, %bx
    mov %al, 0x9100(%bx)
    incl RESULTS + 4
    jmp 1b
2:  mov $0x20, %al
    out %al, $0x20
    pop %bx
    pop %ax
    iretw
