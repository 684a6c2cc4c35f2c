# Every vCPU fills its string buffer from a port with REP INS, `rounds` times. The host finds the last round in the buffer
# (0x30000 + 4 KiB a vCPU).
# Parameters: vcpus (VCPUS, 1), count (COUNT, 64: elements a round, count * width <= 4096), port (PORT, 0x100),
# stride (STRIDE, 0: added once per vCPU number), width (WIDTH, 1; 2 or 4), rounds (ROUNDS, 1).
.include "common.inc"
    guest
    param count, COUNT, 64
    param port, PORT, 0x100
    param stride, STRIDE, 0
    param width, WIDTH, 1
    param rounds, ROUNDS, 1
    begin32
    cld
    mov stride, %edx
    imul %ebp, %edx
    add port, %edx
    mov %ebp, %ebx
    shl $12, %ebx
    add $BUFFERS, %ebx
    mov rounds, %esi
0:  mov count, %ecx
    mov %ebx, %edi
    cmpl $2, width
    je 2f
    ja 4f
    rep insb
    jmp 5f
2:  rep insw
    jmp 5f
4:  rep insl
5:  dec %esi
    jnz 0b
    finish
