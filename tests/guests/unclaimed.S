# Writes zeros to, then reads, addresses that no device claims: each width through a port and through memory, and a
# string of four bytes from a port. EAX is zero before each read.
# Parameters: vcpus (VCPUS, 1), port (PORT, 0x700), address (ADDRESS, 0xDF000000).
# Results: +4, +8, +12 port reads of 1, 2, 4 bytes; +16, +20, +24 the same from memory; +28 the string.
.include "common.inc"
    guest
    param port, PORT, 0x700
    param address, ADDRESS, 0xDF000000
    begin32
    cld
    results
    mov port, %edx
    mov address, %ebx
    xor %eax, %eax
    out %al, %dx
    out %ax, %dx
    out %eax, %dx
    mov %al, (%ebx)
    mov %ax, (%ebx)
    mov %eax, (%ebx)
    in %dx, %al
    mov %eax, 4(%edi)
    xor %eax, %eax
    in %dx, %ax
    mov %eax, 8(%edi)
    xor %eax, %eax
    in %dx, %eax
    mov %eax, 12(%edi)
    xor %eax, %eax
    mov (%ebx), %al
    mov %eax, 16(%edi)
    xor %eax, %eax
    mov (%ebx), %ax
    mov %eax, 20(%edi)
    xor %eax, %eax
    mov (%ebx), %eax
    mov %eax, 24(%edi)
    add $28, %edi
    mov $4, %ecx
    rep insb
    finish
