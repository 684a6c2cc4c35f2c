# Keeps a virtio-mmio block device busy: four requests at a time on one queue, for ever, its used ring polled.
# Parameters: vcpus (ignored), base (BASE, 0xD0000000), irq (0), piece (PIECE, 0x1000: bytes of a request), size (SIZE, 0x4000000:
# bytes of the image, a power of two), stride (STRIDE, 0x1357000: from a request to the next in the image, modulo its size), data
# (DATA, 0x4000000: buffers in memory), kind (KIND, 0: reads; 1: writes).
# Results: +4 requests that ended with status OK, +8 other requests, +12 notifications.
.include "common.inc"
    guest
    param base, BASE, 0xD0000000
    param irq, IRQ, 0
    param piece, PIECE, 0x1000
    param size, SIZE, 0x4000000
    param stride, STRIDE, 0x1357000
    param data, DATA, 0x4000000
    param kind, KIND, 0
    begin32
.include "virtio_mmio.inc"
.set LAST_HEAD, 9
.set HEADERS, 0x50000                   # 16 bytes a descriptor
.set STATUSES, 0x51000
    mov $RESULTS + 4, %edi
    xor %eax, %eax
    stosl
    stosl
    stosl
    mov base, %ebx
    mov $1 << 9, %eax                   # flush: writes need not be on the disk
    mov $1, %ecx
    call vio_start
    mov $QUEUES, %esi
    decl size                           # a mask
    xor %edi, %edi                      # EDI: the next request's byte in the image
    xor %eax, %eax                      # EAX: a request's first descriptor
1:  call prepare
    call issue
    add $3, %eax
    cmp $LAST_HEAD, %eax
    jbe 1b

2:  movzwl OWN_USED(%esi), %edx
3:  cmp USED + 2(%esi), %dx
    je 3b
    and $QUEUE_ENTRIES - 1, %edx
    mov USED + 4(%esi, %edx, 8), %eax
    incw OWN_USED(%esi)
    cmpb $0, STATUSES(%eax)
    jne 4f
    incl RESULTS + 4
    call issue
    jmp 2b
4:  incl RESULTS + 8
    call issue
    jmp 2b
    finish                              # for a vCPU beyond `vcpus`, which waits there

# The three descriptors from EAX on: a header, a piece of memory, a status byte.
prepare:
    mov %eax, %ecx
    shl $4, %ecx
    mov kind, %edx
    mov %edx, HEADERS(%ecx)
    movl $0, HEADERS + 12(%ecx)
    push %esi
    add %ecx, %esi
    add $HEADERS, %ecx
    descriptor 0, %ecx, $16, NEXT
    lea 1(%eax), %edx
    mov %dx, 14(%esi)
    mov piece, %ecx
    imul %eax, %ecx
    add data, %ecx
    descriptor 1, %ecx, piece, NEXT | WRITABLE
    cmpl $0, kind
    je 1f
    movw $NEXT, 16 + 12(%esi)
1:  lea 2(%eax), %edx
    mov %dx, 16 + 14(%esi)
    lea STATUSES(%eax), %ecx
    descriptor 2, %ecx, $1, WRITABLE
    pop %esi
    ret

# Makes the request at EAX available; the device is told unless it says that it looks by itself.
issue:
    mov %eax, %ecx
    shl $4, %ecx
    mov %edi, %edx
    shr $9, %edx
    mov %edx, HEADERS + 8(%ecx)
    movb $0xFF, STATUSES(%eax)
    add stride, %edi
    and size, %edi
    call vio_offer
    lock orl $0, (%esp)                 # the index is there before the look
    testw $1, USED(%esi)
    jnz 1f
    incl RESULTS + 12
    movl $0, 0x50(%ebx)
1:  ret
