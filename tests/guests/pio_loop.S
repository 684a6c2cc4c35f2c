# Every vCPU makes `count` port accesses of one width; a write's value counts down from `count` to 1.
# Parameters: vcpus (VCPUS, 1), count (COUNT, 1000), port (PORT, 0x100), stride (STRIDE, 0: added once per vCPU number),
# width (WIDTH, 1; 2 or 4), write (WRITE, 1; 0 reads). Results: +4 the last value read.
.include "common.inc"
    guest
    param count, COUNT, 1000
    param port, PORT, 0x100
    param stride, STRIDE, 0
    param width, WIDTH, 1
    param write, WRITE, 1
    begin32
    mov stride, %edx
    imul %ebp, %edx
    add port, %edx
    mov count, %ecx
    xor %eax, %eax
    cmpl $0, write
    jne writes
    cmpl $2, width
    je 2f
    ja 4f
1:  in %dx, %al
    dec %ecx
    jnz 1b
    jmp end
2:  in %dx, %ax
    dec %ecx
    jnz 2b
    jmp end
4:  in %dx, %eax
    dec %ecx
    jnz 4b
    jmp end
writes:
    mov %ecx, %eax
    cmpl $2, width
    je 2f
    ja 4f
1:  out %al, %dx
    dec %eax
    jnz 1b
    jmp end
2:  out %ax, %dx
    dec %eax
    jnz 2b
    jmp end
4:  out %eax, %dx
    dec %eax
    jnz 4b
end:
    results
    mov %eax, 4(%edi)
    finish
