# Starts a device, then counts interrupts in memory, the first thing that its handler does.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 5; see irq.inc), address (ADDRESS, 0xD0000000: a write starts it),
# count (COUNT, 1000: interrupts to wait for), halt (HALT, 0: spins meanwhile; 1: sleeps in HLT).
# Results: the word at 0x9100 counts the interrupts.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, 0
    param irq, IRQ, 5
    param address, ADDRESS, 0xD0000000
    param count, COUNT, 1000
    param halt, HALT, 0
    begin32
    movl $0, 0x9100
    irq_begin on_irq
    mov count, %ecx
    mov address, %edx
    mov %ecx, (%edx)
1:  cli
    cmp %ecx, 0x9100
    jae 3f
    cmpl $0, halt
    je 2f
    sti                                 # takes effect after HLT has begun: no wake-up is lost
    hlt
    jmp 1b
2:  sti
    nop
    cmp %ecx, 0x9100
    jb 2b
3:  cli
    finish

on_irq:
    incl 0x9100
    push %eax
    irq_end
    pop %eax
    irq_return
    irq_data
