# Finds a virtio entropy device on PCI, places its BAR, sets it up with MSI-X, asks for bytes; then moves the BAR while
# the device runs and asks again.
# Parameters: vcpus (ignored), slot (SLOT, 3), irq (IRQ, 1: sleep until a message comes; 0: poll), count (COUNT, 1:
# requests at each place), bar (BAR, 0xE0000000), moved (MOVED, 0xE0100000: where it goes).
# Results: +4 requests done, +8 bytes filled, +12 vendor and device id, +16 the BAR's size mask, +20 what the old place
# reads after the move, +24 the status register read at the new one, +28 messages taken, +32 the queue's vector read
# back, +36 capabilities found (a bit for each virtio structure, bit 17 for MSI-X).
.include "common.inc"
    guest
    param slot, SLOT, 3
    param irq, IRQ, 1
    param count, COUNT, 1
    param bar, BAR, 0xE0000000
    param moved, MOVED, 0xE0100000
    begin32
.include "virtio_queue.inc"
.set VECTOR, 0x28
.set CAP_VENDOR, 9
.set CAP_MSIX, 0x11
    xor %eax, %eax
    mov $RESULTS + 4, %edi
    mov $9, %ecx
    rep stosl
    movl $0, INTERRUPTS
    call vio_gates
    movl $0x1FF, LAPIC + 0xF0           # on, spurious vector 0xFF

    xor %ecx, %ecx
    call config_read
    mov %eax, RESULTS + 12
    mov $0x10, %ecx
    mov $0xFFFFFFFF, %eax
    call config_write
    call config_read
    mov %eax, RESULTS + 16
    mov bar, %eax
    mov %eax, %ebx                      # EBX: where the BAR is
    call config_write
    mov $0x04, %ecx
    mov $6, %eax                        # memory decoding, bus master
    call config_write

    mov $0x34, %ecx
    call config_read
1:  movzbl %al, %ecx                    # ECX: a capability
    jecxz 4f
    call config_read
    mov %eax, %edi
    cmp $CAP_VENDOR, %al
    jne 2f
    mov %edi, %edx
    shr $24, %edx                       # the structure's type
    bts %edx, RESULTS + 36
    push %ecx
    push %edx
    add $8, %ecx
    call config_read
    pop %edx
    pop %ecx
    mov %eax, structures(, %edx, 4)
    jmp 3f
2:  cmp $CAP_MSIX, %al
    jne 3f
    btsl $CAP_MSIX, RESULTS + 36
    push %ecx
    add $4, %ecx
    call config_read
    and $~7, %eax
    add %ebx, %eax
    movl $0xFEE00000, 16(%eax)          # entry 1: vCPU 0
    movl $0, 20(%eax)
    movl $VECTOR, 24(%eax)
    movl $0, 28(%eax)
    pop %ecx
    mov %edi, %eax
    or $0x80000000, %eax                # enable
    call config_write
3:  mov %edi, %eax
    shr $8, %eax
    jmp 1b

4:  mov structures + 4, %edi            # the common configuration
    add %ebx, %edi
    movb $0, 0x14(%edi)
    movb $1, 0x14(%edi)
    movb $3, 0x14(%edi)
    movl $1, 0x08(%edi)
    movl $1, 0x0C(%edi)                 # VIRTIO_F_VERSION_1
    movb $11, 0x14(%edi)
    mov $QUEUES, %esi
    xor %edx, %edx
    clear_queue
    movw $0, 0x16(%edi)
    movw $QUEUE_ENTRIES, 0x18(%edi)
    movw $1, 0x1A(%edi)
    movzwl 0x1A(%edi), %eax
    mov %eax, RESULTS + 32
    mov %esi, 0x20(%edi)
    movl $0, 0x24(%edi)
    movl $QUEUES + AVAILABLE, 0x28(%edi)
    movl $0, 0x2C(%edi)
    movl $QUEUES + USED, 0x30(%edi)
    movl $0, 0x34(%edi)
    movw $1, 0x1C(%edi)
    movb $15, 0x14(%edi)

    call requests
    mov $0x10, %ecx
    mov moved, %eax
    call config_write
    mov (%ebx), %eax
    mov %eax, RESULTS + 20
    mov moved, %ebx
    call requests
    mov structures + 4, %edi
    movzbl 0x14(%ebx, %edi), %eax
    mov %eax, RESULTS + 24
    mov INTERRUPTS, %eax
    mov %eax, RESULTS + 28
    finish

# `count` requests of 32 bytes.
requests:
    mov $QUEUES, %esi
    descriptor 0, $BUFFERS, $32, WRITABLE
    mov count, %ecx
1:  xor %eax, %eax
    call vio_offer
    mov structures + 8, %edx
    movw $0, (%ebx, %edx)               # notify queue 0
    call vio_wait
    add %eax, RESULTS + 8
    incl RESULTS + 4
    dec %ecx
    jnz 1b
    ret

# The 32-bit configuration register ECX of `slot`, in EAX. EDX is lost.
config_read:
    call config_select
    in %dx, %eax
    ret

config_write:
    push %eax
    call config_select
    pop %eax
    out %eax, %dx
    ret

config_select:
    mov slot, %eax
    shl $11, %eax
    or %ecx, %eax
    or $0x80000000, %eax
    mov $0xCF8, %edx
    out %eax, %dx
    mov $0xCFC, %edx
    ret

on_interrupt:
    push %eax
    incl INTERRUPTS
    movl $0, LAPIC + 0xB0               # EOI
    pop %eax
    end_interrupt

structures:
    .fill 8, 4, 0
