# One write and one read of each width, 1, 2, 4 and 8 bytes, at `address` + 0, 8, 16, 24. Enter it in long mode.
# The written value is 0x8877665544332211, cut to the width.
# Parameters: vcpus (ignored), address (ADDRESS, 0xD0000000). Results: +8, +16, +24, +32 what was read, zero-extended.
.include "common.inc"
    guest64
    param address, ADDRESS, 0xD0000000
    begin64
    mov address, %ebx
    mov $0x8877665544332211, %rax
    mov %al, (%rbx)
    mov %ax, 8(%rbx)
    mov %eax, 16(%rbx)
    mov %rax, 24(%rbx)
    xor %eax, %eax
    mov (%rbx), %al
    mov %rax, 8(%rdi)
    xor %eax, %eax
    mov 8(%rbx), %ax
    mov %rax, 16(%rdi)
    mov 16(%rbx), %eax
    mov %rax, 24(%rdi)
    mov 24(%rbx), %rax
    mov %rax, 32(%rdi)
    finish64
