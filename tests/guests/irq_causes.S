# Starts two devices, sleeps in HLT, and asks each device's cause register for its causes at every interrupt, until it has had
# all. A cause that is lost leaves it asleep for ever.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 5; see irq.inc), first (FIRST, 0xD0000000) and second (SECOND, 0:
# there is none) the devices' addresses, count (COUNT, 100: causes that each is told to make).
# A device: a write to +4 starts it, a read of +0 gives the causes since the last one.
# Results: +4 causes of the first, +8 of the second, +12 interrupts, +16 interrupts that found no cause.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, 0
    param irq, IRQ, 5
    param first, FIRST, 0xD0000000
    param second, SECOND, 0
    param count, COUNT, 100
    begin32
    movl $0, RESULTS + 8
    movl $0, RESULTS + 12
    movl $0, RESULTS + 16
    irq_begin on_irq
    mov count, %eax
    mov first, %edx
    mov %eax, 4(%edx)
    mov second, %edx
    test %edx, %edx
    jz wait
    mov %eax, 4(%edx)
wait:
    cli
    mov count, %eax
    cmp %eax, RESULTS + 4
    jb 1f
    cmpl $0, second
    je end
    cmp %eax, RESULTS + 8
    jae end
1:  sti                                 # takes effect after HLT has begun: no wake-up is lost
    hlt
    jmp wait
end:
    finish

on_irq:
    push %eax
    push %ecx
    push %edx
    incl RESULTS + 12
    mov first, %edx
    mov (%edx), %ecx
    add %ecx, RESULTS + 4
    mov second, %edx
    test %edx, %edx
    jz 1f
    mov (%edx), %eax
    add %eax, RESULTS + 8
    add %eax, %ecx
1:  test %ecx, %ecx
    jnz 2f
    incl RESULTS + 16
2:  irq_end
    pop %edx
    pop %ecx
    pop %eax
    irq_return
    irq_data
