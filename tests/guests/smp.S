# All vCPUs come up by INIT/SIPI; in the order of their numbers each writes "cpu N up\n" to a serial port.
# Parameters: vcpus (VCPUS, 1; at most 10), port (PORT, 0x3F8). Results: +4 the vCPU's number + 1.
.include "common.inc"
    guest
    param port, PORT, 0x3F8
    begin32
    results
    lea 1(%ebp), %eax
    mov %eax, 4(%edi)
    test %ebp, %ebp
    jz 2f
1:  cmpl $0, DONE - 64(%edi)            # the one before has written its line
    jne 2f
    pause
    jmp 1b
2:  lea '0'(%ebp), %ebx
    mov $text, %esi
    mov port, %edx
3:  lodsb
    test %al, %al
    jz 5f
    cmp $'#', %al
    jne 4f
    mov %bl, %al
4:  out %al, %dx
    jmp 3b
5:  finish
text:
    .asciz "cpu # up\n"
