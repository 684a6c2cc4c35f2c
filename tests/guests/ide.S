# The IDE controller's primary drive: sectors by string instructions through the data port, there and back, and by
# bus-master DMA.
#
# Reads COUNT sectors from sector 0 (rep insw) to 0x30000, writes them to sector TARGET (rep outsw), and lets the bus
# master read those to 0x40000. All is polled.
#
# Results:
#   +4   the drive's status after the last read
#   +8   the drive's status after the last write
#   +12  the bus master's status after the DMA
#   +16  the drive's status after the DMA
    .include "common.inc"

.set FROM, 0x30000
.set TO, 0x40000
.set PRD, 0x50000
.set MASTER, 0xC000

guest
param count, COUNT, 4
param target, TARGET, 64
begin32

    mov count, %eax
    xor %ebx, %ebx
    mov $0x20, %cl                      # READ SECTORS
    call command
    mov count, %esi
    mov $FROM, %edi
1:  call wait_for_data
    mov $256, %ecx
    mov $0x1F0, %dx
    cld
    rep insw
    dec %esi
    jnz 1b
    mov $0x1F7, %dx
    xor %eax, %eax
    in %dx, %al
    mov %eax, RESULTS + 4

    mov target, %ebx
    mov $0x30, %cl                      # WRITE SECTORS
    call command
    mov count, %ebx
    mov $FROM, %esi
2:  call wait_for_data
    mov $256, %ecx
    mov $0x1F0, %dx
    rep outsw
    dec %ebx
    jnz 2b
3:  mov $0x1F7, %dx
    xor %eax, %eax
    in %dx, %al
    test $0x80, %al
    jnz 3b
    mov %eax, RESULTS + 8

    mov $0x80000804, %eax               # I/O decoding and bus mastering
    mov $0xCF8, %dx
    out %eax, %dx
    mov $5, %ax
    mov $0xCFC, %dx
    out %ax, %dx
    movl $TO, PRD
    mov count, %eax
    shl $9, %eax
    or $0x80000000, %eax
    mov %eax, PRD + 4
    mov $PRD, %eax
    mov $MASTER + 4, %dx
    out %eax, %dx
    mov $0x06, %al                      # the interrupts before this one
    mov $MASTER + 2, %dx
    out %al, %dx
    mov target, %ebx
    mov $0xC8, %cl                      # READ DMA
    call command
    mov $0x09, %al
    mov $MASTER, %dx
    out %al, %dx
4:  mov $MASTER + 2, %dx
    xor %eax, %eax
    in %dx, %al
    test $4, %al
    jz 4b
    mov %eax, RESULTS + 12
    mov $0x1F7, %dx
    in %dx, %al
    mov %eax, RESULTS + 16
    finish

# CL: a command for `count` sectors from sector EBX (below 2^24) on.
command:
    mov $0x1F2, %dx
    mov count, %al
    out %al, %dx
    mov %ebx, %eax
    inc %dx
    out %al, %dx
    shr $8, %eax
    inc %dx
    out %al, %dx
    shr $8, %eax
    inc %dx
    out %al, %dx
    mov $0xE0, %al
    inc %dx
    out %al, %dx
    mov %cl, %al
    inc %dx
    out %al, %dx
    ret

wait_for_data:
    mov $0x1F7, %dx
1:  in %dx, %al
    test $0x08, %al
    jz 1b
    ret
