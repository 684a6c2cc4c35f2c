# Greets through a virtio-mmio console, then echoes what it receives.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000), irq (IRQ, 0: poll; else sleep until this PIC line), count
# (COUNT, 0: bytes to echo before it ends).
# Results: +4 bytes received, +8 the status register after set-up, +12 columns and rows (16 bits each) of the
# configuration space.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param count, COUNT, 0
    begin32
.include "virtio_mmio.inc"
.set RECEIVE, QUEUES
.set TRANSMIT, QUEUES + QUEUE_SPAN
.set INPUT_BYTES, 256
    movl $0, RESULTS + 4
    cmpl $0, irq
    je 1f
    call vio_interrupts
1:  mov base, %ebx
    mov $1, %eax                        # VIRTIO_CONSOLE_F_SIZE
    mov $2, %ecx
    call vio_start
    mov %eax, RESULTS + 8
    mov 0x100(%ebx), %eax
    mov %eax, RESULTS + 12

    mov $TRANSMIT, %esi
    descriptor 0, $greeting, $(greeting_end - greeting), 0
    call transfer
2:  mov count, %eax
    cmp %eax, RESULTS + 4
    jae 3f
    mov $RECEIVE, %esi
    descriptor 0, $BUFFERS, $INPUT_BYTES, WRITABLE
    call transfer
    add %eax, RESULTS + 4
    mov %eax, %ecx
    mov $TRANSMIT, %esi
    descriptor 0, $BUFFERS, %ecx, 0
    call transfer
    jmp 2b
3:  finish

# One request with descriptor 0 of the queue at ESI, waited for: its length in EAX.
transfer:
    xor %eax, %eax
    call vio_offer
    call vio_notify
    jmp vio_wait

greeting:
    .ascii "the guest is here\n"
greeting_end:
