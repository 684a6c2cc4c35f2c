# Plays ball over a virtio-mmio network interface: one guest sends numbered frames and waits for each to come back, the
# other returns what it gets, with 0x100 added to the number.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000), irq (IRQ, 0: poll; else sleep until this PIC line), count
# (COUNT, 1: frames), returns (RETURNS, 0: sends first; 1: returns).
# Results: +4 frames that came and were as expected, +8 frames that were not, +12 1 once the device runs and has a buffer
# for a frame, +16 the length of the last frame with its virtio header.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param count, COUNT, 1
    param returns, RETURNS, 0
    begin32
.include "virtio_mmio.inc"
.set RECEIVE, QUEUES
.set TRANSMIT, QUEUES + QUEUE_SPAN
.set INCOMING, BUFFERS
.set HEADER_BYTES, 12
.set FRAME_BYTES, 60
.set NUMBER, HEADER_BYTES + 14          # behind two addresses and a type
    movl $0, RESULTS + 4
    movl $0, RESULTS + 8
    movl $0, RESULTS + 12
    cmpl $0, irq
    je 1f
    call vio_interrupts
1:  mov base, %ebx
    xor %eax, %eax
    mov $2, %ecx
    call vio_start
    call listen
    movl $1, RESULTS + 12
    xor %ecx, %ecx                      # ECX: the frame's number
next:
    cmpl $0, returns
    jne 2f
    mov %ecx, outgoing + NUMBER
    call send
2:  mov $RECEIVE, %esi
    call vio_wait
    mov %eax, RESULTS + 16
    mov %ecx, %edx
    cmpl $0, returns
    jne 3f
    add $0x100, %edx
3:  cmp INCOMING + NUMBER, %edx
    jne 4f
    incl RESULTS + 4
    jmp 5f
4:  incl RESULTS + 8
5:  mov INCOMING + NUMBER, %eax
    push %eax
    call listen
    pop %eax
    cmpl $0, returns
    je 6f
    add $0x100, %eax
    mov %eax, outgoing + NUMBER
    call send
6:  inc %ecx
    cmp count, %ecx
    jb next
    finish

# Gives the device a buffer for the next frame.
listen:
    mov $RECEIVE, %esi
    descriptor 0, $INCOMING, $2048, WRITABLE
    xor %eax, %eax
    call vio_offer
    jmp vio_notify

# Sends `outgoing` and waits until the device has taken it.
send:
    mov $TRANSMIT, %esi
    descriptor 0, $outgoing, $(HEADER_BYTES + FRAME_BYTES), 0
    xor %eax, %eax
    call vio_offer
    call vio_notify
    jmp vio_wait

outgoing:
    .fill HEADER_BYTES, 1, 0
    .byte 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF
    .byte 0x52, 0x54, 0x00, 0x12, 0x34, 0x56
    .byte 0x88, 0xB5                    # a type for experiments (IEEE 802)
    .fill FRAME_BYTES - 14, 1, 0
