# Has a device raise its line and lower it again, from its own loop, and counts interrupts: an edge-triggered pin sees one edge
# for each rise, however long the line stays high.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 0) and irq (IRQ, 5; see irq.inc), address (ADDRESS, 0xD0000000), count (COUNT, 100),
# masked (MASKED, 0; 1: the IOAPIC's pin is masked through one rise and fall before).
# A device: the line is what is written to +0; a read of +0 gives how often that has been done.
# Results: +8 interrupts.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, 0
    param irq, IRQ, 5
    param address, ADDRESS, 0xD0000000
    param count, COUNT, 100
    param masked, MASKED, 0
    begin32
    movl $0, RESULTS + 8
    irq_begin on_irq
    xor %ebx, %ebx                      # moves
    mov address, %edx
    cmpl $0, masked
    je again
    orl $0x10000, IOAPIC + 0x10         # irq_begin has left the pin's entry selected
    mov $1, %eax
    call move
    xor %eax, %eax
    call move
    andl $~0x10000, IOAPIC + 0x10
again:
    mov RESULTS + 8, %esi
    mov $1, %eax
    call move
    sti
1:  cmp RESULTS + 8, %esi
    je 1b
    mov $20, %edi                       # time for more interrupts than one
2:  mov (%edx), %eax
    dec %edi
    jnz 2b
    cli
    xor %eax, %eax
    call move
    decl count
    jnz again
    finish

# Makes the line EAX, and waits until the device has done so.
move:
    mov %eax, (%edx)
    inc %ebx
3:  cmp %ebx, (%edx)
    jne 3b
    ret

on_irq:
    push %eax
    incl RESULTS + 8
    irq_end
    pop %eax
    irq_return
    irq_data
