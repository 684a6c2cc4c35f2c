# Lies to a virtio-mmio entropy device, watches it ask for a reset, then resets it and asks honestly.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000), irq (IRQ, 0: the guest only polls), and the lie, which the
# honest request is too by default: address_low (ADDRESS_LOW, 0x30000), address_high (ADDRESS_HIGH, 0), length
# (LENGTH, 16), flags (FLAGS, 2), next (FOLLOWING, 0) of descriptor 0, head (HEAD, 0) in the available ring, advance
# (ADVANCE, 1: added to its index), table (TABLE, 0x40000: where the descriptor table is said to be), looks (LOOKS,
# 2000: reads of the status register before it gives up).
# Results: +4 the status register after the lie, +8 bytes of the honest request, +12 the status register at the end.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param address_low, ADDRESS_LOW, 0x30000
    param address_high, ADDRESS_HIGH, 0
    param length, LENGTH, 16
    param flags, FLAGS, 2
    param next, FOLLOWING, 0
    param head, HEAD, 0
    param advance, ADVANCE, 1
    param table, TABLE, 0x40000
    param looks, LOOKS, 2000
    begin32
.include "virtio_mmio.inc"
.set NEEDS_RESET, 0x40
    movl $0, RESULTS + 4
    movl $0, RESULTS + 8
    mov base, %ebx
    xor %eax, %eax
    mov $1, %ecx
    call vio_start
    cmpl $QUEUES, table
    je 1f
    movl $0, 0x70(%ebx)                 # again, with the table where it was not
    movl $3, 0x70(%ebx)
    movl $1, 0x24(%ebx)
    movl $1, 0x20(%ebx)
    movl $11, 0x70(%ebx)
    movl $0, 0x30(%ebx)
    movl $QUEUE_ENTRIES, 0x38(%ebx)
    mov table, %eax
    mov %eax, 0x80(%ebx)
    movl $QUEUES + AVAILABLE, 0x90(%ebx)
    movl $QUEUES + USED, 0xA0(%ebx)
    movl $1, 0x44(%ebx)
    movl $15, 0x70(%ebx)
1:  mov $QUEUES, %esi
    mov address_low, %eax
    mov %eax, (%esi)
    mov address_high, %eax
    mov %eax, 4(%esi)
    mov length, %eax
    mov %eax, 8(%esi)
    mov next, %eax
    shl $16, %eax
    or flags, %eax
    mov %eax, 12(%esi)
    mov head, %eax
    mov %ax, AVAILABLE + 4(%esi)
    mov advance, %eax
    mov %ax, AVAILABLE + 2(%esi)
    call vio_notify
    mov looks, %ecx
2:  mov 0x70(%ebx), %eax
    test $NEEDS_RESET, %eax
    jnz 3f
    dec %ecx
    jnz 2b
3:  mov %eax, RESULTS + 4

    xor %eax, %eax
    mov $1, %ecx
    call vio_start
    mov $QUEUES, %esi
    descriptor 0, $BUFFERS, $16, WRITABLE
    xor %eax, %eax
    call vio_offer
    call vio_notify
    call vio_wait
    mov %eax, RESULTS + 8
    mov 0x70(%ebx), %eax
    mov %eax, RESULTS + 12
    finish
