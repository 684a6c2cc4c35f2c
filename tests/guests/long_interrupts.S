# INT3 and INT 0x80 in long mode, through gates of the guest's own table. Enter it in long mode.
# Parameters: vcpus (ignored). Results: +8 where INT3's handler was to return to, less where it began, +16 the same of INT 0x80,
# +24 how often either handler ran, +32 the code segment that was pushed.
.include "common.inc"
    guest64
    begin64
    lea table(%rip), %rbx
    lea on_breakpoint(%rip), %rax
    mov $3, %ecx
    call set_gate
    lea on_call(%rip), %rax
    mov $0x80, %ecx
    call set_gate
    lidt table_register(%rip)
breakpoint:
    int3
call:
    int $0x80
    finish64

# Gate RCX leads to RAX: Intel SDM volume 3, figure 6-8 (64-bit interrupt gate).
set_gate:
    shl $4, %ecx
    mov %ax, (%rbx,%rcx)
    movw $0x08, 2(%rbx,%rcx)
    movw $0x8E00, 4(%rbx,%rcx)
    shr $16, %rax
    mov %ax, 6(%rbx,%rcx)
    ret

on_breakpoint:
    mov (%rsp), %rax
    lea breakpoint(%rip), %rdx
    sub %rdx, %rax
    mov %rax, 8(%rdi)
    jmp seen
on_call:
    mov (%rsp), %rax
    lea call(%rip), %rdx
    sub %rdx, %rax
    mov %rax, 16(%rdi)
seen:
    incq 24(%rdi)
    mov 8(%rsp), %rax
    mov %rax, 32(%rdi)
    iretq

    .balign 8
table_register:
    .word 0xFFF
    .quad table
    .balign 16
table:
    .fill 4096, 1, 0
