# Programs comparator `timer` of the HPET, by legacy replacement, to 1 kHz periodically and sleeps in HLT until it has
# interrupted often enough.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 0; see irq.inc), timer (TIMER, 0), count (COUNT, 50).
# Results: +4 interrupts, +8 ticks of the main counter from the first to the last of them.
.include "common.inc"
.include "irq.inc"
.set HPET, 0xFED00000
.set TICKS, 100000
    guest
    param mode, MODE, 0
    param irq, IRQ, 0
    param timer, TIMER, 0
    param count, COUNT, 50
    begin32
    irq_begin on_irq
    mov timer, %ebx
    shl $5, %ebx
    movl $0x14C, HPET + 0x100(%ebx)     # enabled, periodic, its comparator to be set, 32 bits
    movl $TICKS, HPET + 0x108(%ebx)
    movl $TICKS, HPET + 0x108(%ebx)
    movl $3, HPET + 0x10                # count, legacy replacement
    irq_await
    mov HPET + 0xF0, %eax
    sub first, %eax
    mov %eax, RESULTS + 8
    finish

on_irq:
    push %eax
    cmpl $0, RESULTS + 4
    jne 1f
    mov HPET + 0xF0, %eax
    mov %eax, first
1:  incl RESULTS + 4
    irq_end
    pop %eax
    irq_return
    irq_data
first:
    .long 0
