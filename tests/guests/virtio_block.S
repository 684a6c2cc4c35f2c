# Moves a disk image through both queues of a virtio-mmio block device, a request on each at a time.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000), irq (IRQ, 0: poll; else sleep until this PIC line), size (SIZE,
# 0x4000000: bytes of the image, a multiple of 2 * piece), piece (PIECE, 0x100000: bytes of a request), data (DATA,
# 0x4000000: where the image goes in memory), steps (STEPS, 7: 1 reads the image into memory, 2 writes memory to the
# image with its pieces in reverse order, 4 flushes and then writes the byte 10 to port 0x402, 8 ends in HLT instead of at
# the exit port).
# Results: +4 requests that ended with status OK, +8 other requests, +12 the status register after set-up, +16 bytes
# that the device says it wrote to memory, +20 interrupts taken, +24 the sum of each piece's first word after step 1,
# +28 1 once the flush has completed.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param size, SIZE, 0x4000000
    param piece, PIECE, 0x100000
    param data, DATA, 0x4000000
    param steps, STEPS, 7
    begin32
.include "virtio_mmio.inc"
.set IN, 0
.set OUT, 1
.set FLUSH, 4
.set FEATURES, 1 << 9 | 1 << 12         # flush, more queues
.set QUEUE0, QUEUES
.set QUEUE1, QUEUES + QUEUE_SPAN
    xor %eax, %eax
    mov $RESULTS + 4, %edi
    mov $7, %ecx
    rep stosl
    movl $0, INTERRUPTS
    cmpl $0, irq
    je 1f
    call vio_interrupts
1:  mov base, %ebx
    mov $FEATURES, %eax
    mov $2, %ecx
    call vio_start
    mov %eax, RESULTS + 12

    testl $1, steps
    jz 3f
    xor %edi, %edi                      # EDI: the byte in the image, ECX: the byte in memory
2:  mov %edi, %ecx
    add data, %ecx
    mov $IN, %eax
    call pair
    mov piece, %edx
    mov %edi, %eax
    add data, %eax
    mov (%eax), %ecx
    add (%eax, %edx), %ecx
    add %ecx, RESULTS + 24
    lea (%edi, %edx, 2), %edi
    cmp size, %edi
    jb 2b

3:  testl $2, steps
    jz 5f
    xor %edi, %edi
4:  mov data, %ecx                      # the last piece in memory is the first of the image
    add size, %ecx
    sub %edi, %ecx
    sub piece, %ecx
    mov $OUT, %eax
    call pair
    mov piece, %edx
    lea (%edi, %edx, 2), %edi
    cmp size, %edi
    jb 4b

5:  testl $4, steps
    jz 6f
    mov $QUEUE0, %esi
    movl $FLUSH, OWN_HEADER(%esi)
    movl $0, OWN_HEADER + 8(%esi)
    movl $0, OWN_HEADER + 12(%esi)
    lea OWN_HEADER(%esi), %eax
    descriptor 0, %eax, $16, NEXT, 2
    xor %eax, %eax
    call submit
    call reap
    movl $1, RESULTS + 28
    mov $10, %al
    mov $0x402, %dx
    out %al, %dx
6:  mov INTERRUPTS, %eax
    mov %eax, RESULTS + 20
    testl $8, steps
    jnz park
    finish

# One request of kind EAX on each queue: at byte EDI of the image and ECX of memory, and at the pieces after them (for
# OUT, before ECX in memory).
pair:
    push %edi
    mov $QUEUE0, %esi
    call request
    mov piece, %edx
    add %edx, %edi
    cmp $OUT, %eax
    jne 1f
    neg %edx
1:  add %edx, %ecx
    mov $QUEUE1, %esi
    call request
    mov $QUEUE0, %esi
    call reap
    mov $QUEUE1, %esi
    call reap
    pop %edi
    ret

# A request of kind EAX on the queue at ESI, the image's byte in EDI, the memory's in ECX. All but EDX stay.
request:
    mov %eax, OWN_HEADER(%esi)
    mov %edi, %edx
    shr $9, %edx
    mov %edx, OWN_HEADER + 8(%esi)
    movl $0, OWN_HEADER + 12(%esi)
    push %eax
    lea OWN_HEADER(%esi), %eax
    descriptor 0, %eax, $16, NEXT, 1
    cmpl $IN, (%esp)
    jne 1f
    descriptor 1, %ecx, piece, NEXT | WRITABLE, 2
    jmp 2f
1:  descriptor 1, %ecx, piece, NEXT, 2
2:  call submit
    pop %eax
    ret

submit:
    movb $0xFF, OWN_STATUS(%esi)
    lea OWN_STATUS(%esi), %eax
    descriptor 2, %eax, $1, WRITABLE
    xor %eax, %eax
    call vio_offer
    call vio_notify
    ret

# Waits for the queue at ESI and counts how its request ended.
reap:
    push %eax
    call vio_wait
    add %eax, RESULTS + 16
    cmpb $0, OWN_STATUS(%esi)
    jne 1f
    incl RESULTS + 4
    pop %eax
    ret
1:  incl RESULTS + 8
    pop %eax
    ret
