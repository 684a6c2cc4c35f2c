# All vCPUs come up by INIT/SIPI and greet on the serial console, drive their own checksum devices (on different shards)
# as `checksum` does, and report each device's checksum on the console, in the order of their numbers.
# Parameters: vcpus (VCPUS, 1; at most 10), count (COUNT, 1000: writes a device), address (ADDRESS, 0xD0000000), devices
# (DEVICES, 2: of each vCPU; at most 7), stride (STRIDE, 0x1000), port (PORT, 0x3F8).
# Results: +4 the stage (1 greeted, 2 reported), +8 + 8 * D the 64 bits read at device D's offset 0.
.include "common.inc"
    guest
    param count, COUNT, 1000
    param address, ADDRESS, 0xD0000000
    param devices, DEVICES, 2
    param stride, STRIDE, 0x1000
    param port, PORT, 0x3F8
    begin32
    mov $1, %ecx
    call take_turn
    mov $greeting, %esi
    call print
    movl $1, 4(%edi)

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

    mov $2, %ecx
    call take_turn
    xor %ebx, %ebx
4:  mov $report, %esi
    call print
    mov 12(%edi, %ebx, 8), %ecx
    call hexadecimal
    mov 8(%edi, %ebx, 8), %ecx
    call hexadecimal
    mov $'\n', %al
    out %al, %dx
    inc %ebx
    cmp devices, %ebx
    jb 4b
    movl $2, 4(%edi)
    finish

# EDI: this vCPU's results; returns when the vCPU before has reached stage ECX, or, on vCPU 0, the last the stage before.
take_turn:
    results
    lea 4 - 64(%edi), %eax
    test %ebp, %ebp
    jnz 1f
    dec %ecx
    mov vcpus, %eax
    dec %eax
    shl $6, %eax
    add $RESULTS + 4, %eax
1:  cmp %ecx, (%eax)
    jae 2f
    pause
    jmp 1b
2:  ret

# The text at ESI goes to the console: "#" is the vCPU's number, "%" is EBX. DX is the port from then on.
print:
    mov port, %edx
1:  lodsb
    test %al, %al
    jz 4f
    cmp $'#', %al
    jne 2f
    lea '0'(%ebp), %eax
2:  cmp $'%', %al
    jne 3f
    lea '0'(%ebx), %eax
3:  out %al, %dx
    jmp 1b
4:  ret

# ECX in eight digits.
hexadecimal:
    mov $8, %esi
1:  rol $4, %ecx
    mov %ecx, %eax
    and $15, %eax
    mov digits(%eax), %al
    out %al, %dx
    dec %esi
    jnz 1b
    ret

digits:
    .ascii "0123456789abcdef"
greeting:
    .asciz "cpu #: up\n"
report:
    .asciz "cpu #: device % checksum "
