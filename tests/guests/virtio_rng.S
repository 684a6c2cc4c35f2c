# Asks a virtio-mmio entropy device for bytes, one request at a time.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000: the device's registers), irq (IRQ, 0: poll; else sleep until
# this PIC line), count (COUNT, 1: requests), length (LENGTH, 32: bytes of each).
# Results: +4 requests done, +8 bytes that the device filled in all, +12 the status register after set-up, +16 device id,
# +20 interrupts taken; the bytes of the last request are at 0x30000.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param count, COUNT, 1
    param length, LENGTH, 32
    begin32
.include "virtio_mmio.inc"
    results
    movl $0, 4(%edi)
    movl $0, 8(%edi)
    movl $0, INTERRUPTS
    cmpl $0, irq
    je 1f
    call vio_interrupts
1:  mov base, %ebx
    mov 0x08(%ebx), %eax
    mov %eax, RESULTS + 16
    xor %eax, %eax
    mov $1, %ecx
    call vio_start
    mov %eax, RESULTS + 12
    mov $QUEUES, %esi
    descriptor 0, $BUFFERS, length, WRITABLE
    mov count, %ecx
    jecxz 3f
2:  xor %eax, %eax
    call vio_offer
    call vio_notify
    call vio_wait
    add %eax, RESULTS + 8
    incl RESULTS + 4
    dec %ecx
    jnz 2b
3:  mov INTERRUPTS, %eax
    mov %eax, RESULTS + 20
    finish
