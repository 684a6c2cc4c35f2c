# Writes to a device that raises its interrupt during the write, with interrupts off, and looks at once whether the controller
# has it: a trigger during an access is visible before or with that access's completion.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 5; see irq.inc), address (ADDRESS, 0xD0000000), count (COUNT, 100),
# read (READ, 0: writes trigger; 1: reads).
# Results: +4 accesses after which the controller did not have it, +8 interrupts, +12 accesses.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, 0
    param irq, IRQ, 5
    param address, ADDRESS, 0xD0000000
    param count, COUNT, 100
    param read, READ, 0
    begin32
    movl $0, RESULTS + 8
    movl $0, RESULTS + 12
    irq_begin on_irq
again:
    mov address, %edx
    mov RESULTS + 8, %ebx
    cmpl $0, read
    jne 1f
    mov %ebx, (%edx)
    jmp 2f
1:  mov (%edx), %eax
2:  irq_pending
    test %eax, %eax
    jnz 3f
    incl RESULTS + 4
3:  incl RESULTS + 12
    sti
4:  cmp RESULTS + 8, %ebx               # a late one is waited for, so that rounds do not mix
    je 4b
    cli
    decl count
    jnz again
    finish

on_irq:
    push %eax
    incl RESULTS + 8
    irq_end
    pop %eax
    irq_return
    irq_data
