# Every vCPU makes `count` memory-mapped accesses of one width; a write's value counts down from `count` to 1.
# Parameters: vcpus (VCPUS, 1), count (COUNT, 1000), address (ADDRESS, 0xD0000000), stride (STRIDE, 0: added once per
# vCPU number), width (WIDTH, 4; 1 or 2), write (WRITE, 1; 0 reads). Results: +4 the last value read.
.include "common.inc"
    guest
    param count, COUNT, 1000
    param address, ADDRESS, 0xD0000000
    param stride, STRIDE, 0
    param width, WIDTH, 4
    param write, WRITE, 1
    begin32
    mov stride, %edx
    imul %ebp, %edx
    add address, %edx
    mov count, %ecx
    xor %eax, %eax
    cmpl $0, write
    jne writes
    cmpl $2, width
    je 2f
    ja 4f
1:  mov (%edx), %al
    dec %ecx
    jnz 1b
    jmp end
2:  mov (%edx), %ax
    dec %ecx
    jnz 2b
    jmp end
4:  mov (%edx), %eax
    dec %ecx
    jnz 4b
    jmp end
writes:
    mov %ecx, %eax
    cmpl $2, width
    je 2f
    ja 4f
1:  mov %al, (%edx)
    dec %eax
    jnz 1b
    jmp end
2:  mov %ax, (%edx)
    dec %eax
    jnz 2b
    jmp end
4:  mov %eax, (%edx)
    dec %eax
    jnz 4b
end:
    results
    mov %eax, 4(%edi)
    finish
