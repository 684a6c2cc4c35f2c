# Drives one MSI-X vector: triggers it unmasked, masked (looks at the pending bit), then unmasks it; the same with the mask of
# the whole function.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 3) and irq (unused), address (ADDRESS, 0xD0000000). A device: +0 the MSI-X table,
# +0x800 the pending bits, +0xC00 message control (16 bits), +0xC04 a write triggers vector 0.
# Results: +4 interrupts after: +8 the trigger, +12 one masked, +16 the unmasking, +20 one with the function masked, +24 its
# unmasking; +28 pending bits masked, +32 after the unmasking, +36 with the function masked, +40 at the end.
.include "common.inc"
.include "irq.inc"
# Interrupts that came are taken here, by a CPU too that takes them between two blocks of instructions alone.
.macro take
    jmp 7f
7:
.endm

    guest
    param mode, MODE, MESSAGE
    param irq, IRQ, 5
    param address, ADDRESS, 0xD0000000
    begin32
    results
    irq_begin on_irq
    mov address, %edx
    movl $LAPIC, (%edx)
    movl $0, 4(%edx)
    movl $VECTOR, 8(%edx)
    movl $0, 12(%edx)                   # unmasked
    movw $0x8000, 0xC00(%edx)           # enabled
    sti
    movl $1, 0xC04(%edx)
    take
    mov 4(%edi), %eax
    mov %eax, 8(%edi)
    movl $1, 12(%edx)                   # the vector masked
    movl $1, 0xC04(%edx)
    movl $1, 0xC04(%edx)
    take
    mov 4(%edi), %eax
    mov %eax, 12(%edi)
    mov 0x800(%edx), %eax
    mov %eax, 28(%edi)
    movl $0, 12(%edx)
    take
    mov 4(%edi), %eax
    mov %eax, 16(%edi)
    mov 0x800(%edx), %eax
    mov %eax, 32(%edi)
    movw $0xC000, 0xC00(%edx)           # the function masked
    movl $1, 0xC04(%edx)
    take
    mov 4(%edi), %eax
    mov %eax, 20(%edi)
    mov 0x800(%edx), %eax
    mov %eax, 36(%edi)
    movw $0x8000, 0xC00(%edx)
    take
    mov 4(%edi), %eax
    mov %eax, 24(%edi)
    mov 0x800(%edx), %eax
    mov %eax, 40(%edi)
    cli
    finish

on_irq:
    incl RESULTS + 4
    movl $0, LAPIC + 0xB0
    irq_return
    irq_data
