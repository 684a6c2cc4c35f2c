# Writes 1, 2, 3, ... to a device and, where it is to wait, each time waits until the device has put the same number into memory.
# Parameters: vcpus (VCPUS, 1), address (ADDRESS, 0xD0000000), count (COUNT, 1000: at most 0x4000), wait (WAIT, 1; 0: writes only).
# Results: the time of each round, in ticks of the time-stamp counter, 32 bits each from 0x40000 on. The device's answer is
# the word at 0x9100.
.include "common.inc"
.set TIMES, 0x40000
    guest
    param address, ADDRESS, 0xD0000000
    param count, COUNT, 1000
    param wait, WAIT, 1
    begin32
    movl $0, 0x9100
    mov address, %esi
    xor %ebx, %ebx
again:
    rdtsc
    mov %eax, %ecx
    inc %ebx
    mov %ebx, (%esi)
    cmpl $0, wait
    je 2f
1:  cmp %ebx, 0x9100
    jb 1b
2:  rdtsc
    sub %ecx, %eax
    mov %eax, TIMES - 4(, %ebx, 4)
    cmp count, %ebx
    jb again
    finish
