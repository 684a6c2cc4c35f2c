# Every vCPU writes its string buffer to a port with REP OUTS, `rounds` times. The buffer (0x30000 + 4 KiB a vCPU) holds
# what the host put there.
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
    mov rounds, %edi
0:  mov count, %ecx
    mov %ebx, %esi
    cmpl $2, width
    je 2f
    ja 4f
    rep outsb
    jmp 5f
2:  rep outsw
    jmp 5f
4:  rep outsl
5:  dec %edi
    jnz 0b
    finish
