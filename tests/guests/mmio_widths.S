# One write and one read of each width, 1, 2, 4 and 8 bytes, at `address` + 0, 8, 16, 24. Enter it in long mode.
# The written value is 0x8877665544332211, cut to the width.
# Parameters: vcpus (ignored), address (ADDRESS, 0xD0000000). Results: +8, +16, +24, +32 what was read, zero-extended.
.include "common.inc"
    .code64
    .global _start
_start:
    jmp start64
    .org 0x10
    param vcpus, VCPUS, 1
    param address, ADDRESS, 0xD0000000
    .org 0x200
start64:
    mov address, %ebx
    mov $RESULTS, %edi
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
    movl $1, DONE(%rdi)
    .ifndef EXIT_PORT
        .set EXIT_PORT, 0xF4
    .endif
    xor %eax, %eax
    mov $EXIT_PORT, %dx
    out %al, %dx
1:  cli
    hlt
    jmp 1b
