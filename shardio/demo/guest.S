# The demo's guest. Every vCPU comes up by INIT/SIPI and greets on the serial console in its turn; then all at once
# write sequences of 32-bit values to their own checksum devices, one on each shard; in turn again, each tells the
# console what its devices made of them.
#
#   0x1000   this image: vCPU 0 enters it in real mode at 0:0x1000, a SIPI with vector 1 at 0x100:0
#   0x1010   parameters, 32 bits each: vCPUs, devices of each vCPU, writes to each device; the host sets them
#   0x8000   results, 64 bytes a vCPU: +0 its stage (1 greeted, 2 reported), +8 + 8 * D the checksum of its device D
#   0x10000  stacks, 1 KiB a vCPU
#
# Device D of vCPU V is at 0xD0000000 + (V * devices + D) * 0x1000. The values: state = (V + 1) * 0x9E3779B9; before each
# write state = state * 1664525 + 1013904223. One value goes to each device in turn.

.set RESULTS, 0x8000
.set STACKS, 0x10000
.set DEVICES, 0xD0000000
.set DEVICE_STRIDE, 0x1000
.set CONSOLE, 0x3F8
.set EXIT_PORT, 0xF4
.set LOCAL_APIC, 0xFEE00000
.set GREETED, 1
.set REPORTED, 2

    .code16
    .global _start
_start:
    ljmp $0, $enter_protected_mode
    .org 0x10
vcpus:
    .long 1
devices:
    .long 1
count:
    .long 1

enter_protected_mode:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl gdt_pointer
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $protected_mode

    .balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF            # code and data: flat, 4 GiB
    .quad 0x00CF93000000FFFF
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .code32
protected_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov LOCAL_APIC + 0x20, %ebp         # EBP: this vCPU's number, from here on
    shr $24, %ebp
    lea 1(%ebp), %esp
    shl $10, %esp
    add $STACKS, %esp
    mov %ebp, %edi                      # EDI: its results
    shl $6, %edi
    add $RESULTS, %edi
    test %ebp, %ebp
    jnz 1f
    mov $welcome, %esi
    call print
    movl $0xC4500, LOCAL_APIC + 0x300   # INIT, then SIPI with vector 1, to all but this one
    movl $0xC4601, LOCAL_APIC + 0x300

1:  mov $GREETED, %ecx
    call wait_for_turn
    mov $greeting, %esi
    call print
    movl $GREETED, (%edi)

    lea 1(%ebp), %ebx
    imul $0x9E3779B9, %ebx, %ebx
    mov devices, %esi
    imul %ebp, %esi
    imul $DEVICE_STRIDE, %esi
    add $DEVICES, %esi                  # ESI: its first device
    mov count, %ecx
2:  mov %esi, %eax
    mov devices, %edx
3:  imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
    mov %ebx, (%eax)
    add $DEVICE_STRIDE, %eax
    dec %edx
    jnz 3b
    dec %ecx
    jnz 2b

    xor %ebx, %ebx                      # EBX: the device
4:  mov (%esi), %eax
    mov %eax, 8(%edi, %ebx, 8)
    mov 4(%esi), %eax
    mov %eax, 12(%edi, %ebx, 8)
    add $DEVICE_STRIDE, %esi
    inc %ebx
    cmp devices, %ebx
    jb 4b

    mov $REPORTED, %ecx
    call wait_for_turn
    xor %ebx, %ebx
5:  mov $report, %esi
    call print
    mov 12(%edi, %ebx, 8), %ecx
    call print_hexadecimal
    mov 8(%edi, %ebx, 8), %ecx
    call print_hexadecimal
    mov $'\n', %al
    out %al, %dx
    inc %ebx
    cmp devices, %ebx
    jb 5b
    movl $REPORTED, (%edi)

    lea 1(%ebp), %eax                   # the last one ends the machine
    cmp vcpus, %eax
    jb 6f
    mov $farewell, %esi
    call print
    xor %eax, %eax
    mov $EXIT_PORT, %edx
    out %al, %dx
6:  cli
    hlt
    jmp 6b

# Returns when the vCPU before this one has reached stage ECX; vCPU 0 waits for the last one to reach the stage before.
wait_for_turn:
    lea -64(%edi), %eax
    test %ebp, %ebp
    jnz 1f
    dec %ecx
    mov vcpus, %eax
    dec %eax
    shl $6, %eax
    add $RESULTS, %eax
1:  cmp %ecx, (%eax)
    jae 2f
    pause
    jmp 1b
2:  ret

# Sends the text at ESI to the console: "#" stands for the vCPU's number, "%" for EBX. DX is the console's port then.
print:
    mov $CONSOLE, %edx
1:  lodsb
    test %al, %al
    jz 4f
    cmp $'#', %al
    jne 2f
    lea '0'(%ebp), %eax
2:  cmp $'%', %al
    jne 3f
    lea '0'(%ebx), %eax
3:  out %al, %dx
    jmp 1b
4:  ret

# Sends ECX in eight digits.
print_hexadecimal:
    mov $8, %ah
1:  rol $4, %ecx
    mov %cl, %al
    and $15, %al
    cmp $10, %al
    jb 2f
    add $'a' - '0' - 10, %al
2:  add $'0', %al
    out %al, %dx
    dec %ah
    jnz 1b
    ret

welcome:
    .asciz "guest: vCPU 0 is up and wakes the others\n"
greeting:
    .asciz "guest: hello from vCPU #\n"
report:
    .asciz "guest: vCPU #: the device on shard % has "
farewell:
    .asciz "guest: done\n"
