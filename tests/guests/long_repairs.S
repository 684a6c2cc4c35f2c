# Instructions of long mode that KVM's emulator lacks, `rounds` times each. Enter it in long mode.
# Parameters: vcpus (ignored), rounds (ROUNDS, 1). Results: +8 the flags after STAC, +16 after CLAC, +24 the FPU's status word after
# FNCLEX, +32 the first 8 bytes of ST(0) after an XRSTOR of the x87 state at `area`, +40 rounds made.
.include "common.inc"
    guest64
    param rounds, ROUNDS, 1
    begin64
    mov rounds, %ebp
    mov %cr4, %rax
    or $(1 << 18), %rax                 # OSXSAVE
    mov %rax, %cr4
again:
    fwait
    fnclex
    fnstsw 24(%rdi)
    stac
    pushfq
    popq 8(%rdi)
    clac
    pushfq
    popq 16(%rdi)
    clflushopt area(%rip)
    clwb 64(%rdi,%rbp,8)
    mov $1, %eax                        # x87
    xor %edx, %edx
    xrstor area(%rip)
    fxsave scratch(%rip)
    mov scratch+32(%rip), %rax
    mov %rax, 32(%rdi)
    incq 40(%rdi)
    dec %ebp
    jnz again
    finish64

    .balign 64
area:                                   # Intel SDM volume 1, 13.4: FCW, FSW, FTW; ST(0) at 32; XSTATE_BV at 512
    .word 0x37F, 0
    .byte 0x80, 0, 0, 0
    .fill 24, 1, 0
    .quad 0x8877665544332211
    .word 0x3FFF
    .fill 512 - 42, 1, 0
    .quad 1
    .fill 56, 1, 0
    .fill 256, 1, 0
    .balign 64
scratch:
    .fill 512, 1, 0
