# Every vCPU writes a sequence of 32-bit values to each of its own checksum devices in turn, then reads their checksums
# back. Device D of vCPU V is at `address` + (V * devices + D) * `stride`; put the devices on different shards.
# The sequence: state = (V + 1) * 0x9E3779B9; before each write state = state * 1664525 + 1013904223, which is written.
# Parameters: vcpus (VCPUS, 1), count (COUNT, 100: writes a device), address (ADDRESS, 0xD0000000), devices (DEVICES, 2;
# at most 7), stride (STRIDE, 0x1000). Results: +8 + 8 * D the 64 bits read at the device's offset 0.
.include "common.inc"
    guest
    param count, COUNT, 100
    param address, ADDRESS, 0xD0000000
    param devices, DEVICES, 2
    param stride, STRIDE, 0x1000
    begin32
    lea 1(%ebp), %ebx
    imul $0x9E3779B9, %ebx, %ebx
    mov devices, %esi
    imul %ebp, %esi
    imul stride, %esi
    add address, %esi
    mov count, %ecx
1:  mov %esi, %edi
    mov devices, %edx
2:  imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
    mov %ebx, (%edi)
    add stride, %edi
    dec %edx
    jnz 2b
    dec %ecx
    jnz 1b
    results
    mov devices, %edx
3:  mov (%esi), %eax
    mov %eax, 8(%edi)
    mov 4(%esi), %eax
    mov %eax, 12(%edi)
    add $8, %edi
    add stride, %esi
    dec %edx
    jnz 3b
    finish
