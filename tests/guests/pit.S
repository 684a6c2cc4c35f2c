# Programs channel 0 of the PIT as a rate generator of 1 kHz and sleeps in HLT until it has interrupted often enough.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 0; see irq.inc), count (COUNT, 50).
# Results: +4 interrupts.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, 0
    param irq, IRQ, 0
    param count, COUNT, 50
    begin32
    irq_begin on_irq
    mov $0x34, %al                      # channel 0, both bytes, mode 2
    out %al, $0x43
    mov $1193 & 0xFF, %al
    out %al, $0x40
    mov $1193 >> 8, %al
    out %al, $0x40
    irq_await
    finish

on_irq:
    push %eax
    incl RESULTS + 4
    irq_end
    pop %eax
    irq_return
    irq_data
