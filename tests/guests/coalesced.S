# Writes `count` numbers, counting from 1, to a device, asks it every `every` writes how many it has had, and at the end.
# Parameters: vcpus (VCPUS, 1), address (ADDRESS, 0xD0000000; a port where pio), pio (PIO, 0), count (COUNT, 1000), every
# (EVERY, 16: a power of two, 0 never). A device: a write of 32 bits to +0, a read of +4 tells how many there were.
# Results: +4 answers that were not the writes made by then, +8 the last answer.
.include "common.inc"
    guest
    param address, ADDRESS, 0xD0000000
    param pio, PIO, 0
    param count, COUNT, 1000
    param every, EVERY, 16
    begin32
    results
    xor %ebx, %ebx
    mov every, %esi
    dec %esi
again:
    inc %ebx
    mov address, %edx
    mov %ebx, %eax
    cmpl $0, pio
    jne 1f
    mov %eax, (%edx)
    jmp 2f
1:  out %eax, %dx
2:  cmpl $0, every
    je 3f
    test %esi, %ebx
    jnz 3f
    call ask
3:  cmp count, %ebx
    jb again
    call ask
    mov %eax, 8(%edi)
    finish

ask:
    mov address, %edx
    add $4, %edx
    cmpl $0, pio
    jne 1f
    mov (%edx), %eax
    jmp 2f
1:  in %dx, %eax
2:  cmp %ebx, %eax
    je 3f
    incl 4(%edi)
3:  ret
