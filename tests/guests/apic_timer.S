# The local APIC's timer interrupts, once armed for one shot, then periodically, until it has done so `count` times; the guest sleeps
# in HLT meanwhile.
# Parameters: vcpus (ignored), mode (MODE, 3) and irq (unused), count (COUNT, 10), period (PERIOD, 1000000: ns).
# Results: +4 interrupts.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, MESSAGE
    param irq, IRQ, 5
    param count, COUNT, 10
    param period, PERIOD, 1000000
    begin32
    movl $0, RESULTS + 4
    irq_begin on_irq
    movl $0xB, LAPIC + 0x3E0            # divide by 1
    movl $VECTOR, LAPIC + 0x320         # one shot
    mov period, %eax
    mov %eax, LAPIC + 0x380
    sti
    hlt
    cli
    movl $0x20000 | VECTOR, LAPIC + 0x320
    mov period, %eax
    mov %eax, LAPIC + 0x380
    irq_await
    finish

on_irq:
    push %eax
    incl RESULTS + 4
    irq_end
    pop %eax
    irq_return
    irq_data
