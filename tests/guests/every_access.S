# Makes accesses of every kind, `count` times over: writes and reads of memory-mapped registers and ports, instructions that read and
# write (add, pop), one that is not aligned, flags that live across an access. What was read goes into a checksum, which is written
# to `end` when all is done.
# Parameters: vcpus (1), count (COUNT, 40), address (ADDRESS, 0xD0000000), port (PORT, 0x80), end (END, 0x84).
.include "common.inc"
    guest
    param count, COUNT, 40
    param address, ADDRESS, 0xD0000000
    param port, PORT, 0x80
    param end, END, 0x84
    begin32
    mov address, %ebx
    mov count, %ecx
    xor %esi, %esi
1:  mov %ecx, (%ebx)
    mov (%ebx), %eax
    add %eax, %esi
    mov port, %edx
    out %eax, %dx
    in %dx, %al
    add %eax, %esi
    addl $5, 4(%ebx)
    mov %esi, 1(%ebx)
    cmp $-1, %esi
    adcl $0, 8(%ebx)
    push %ebx
    pop 12(%ebx)
    xchg %esi, 16(%ebx)
    dec %ecx
    jnz 1b
    mov %esi, %eax
    mov end, %edx
    out %eax, %dx
park:
    cli
    hlt
    jmp park
