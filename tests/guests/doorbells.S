# Writes one value `count` times to one address, then another `other_count` times.
# Parameters: vcpus (VCPUS, 1), address (ADDRESS, 0xD0000000; a port where pio), pio (PIO, 0), width (WIDTH, 4; 1, 2), value
# (VALUE, 0), count (COUNT, 1000), other (OTHER, 1), other_count (OTHER_COUNT, 0).
.include "common.inc"
    guest
    param address, ADDRESS, 0xD0000000
    param pio, PIO, 0
    param width, WIDTH, 4
    param value, VALUE, 0
    param count, COUNT, 1000
    param other, OTHER, 1
    param other_count, OTHER_COUNT, 0
    begin32
    mov address, %edx
    mov value, %eax
    mov count, %ecx
    call writes
    mov other, %eax
    mov other_count, %ecx
    call writes
    finish

writes:
    test %ecx, %ecx
    jz 9f
    cmpl $0, pio
    jne ports
    cmpl $2, width
    je 2f
    ja 4f
1:  mov %al, (%edx)
    dec %ecx
    jnz 1b
    ret
2:  mov %ax, (%edx)
    dec %ecx
    jnz 2b
    ret
4:  mov %eax, (%edx)
    dec %ecx
    jnz 4b
9:  ret
ports:
    cmpl $2, width
    je 2f
    ja 4f
1:  out %al, %dx
    dec %ecx
    jnz 1b
    ret
2:  out %ax, %dx
    dec %ecx
    jnz 2b
    ret
4:  out %eax, %dx
    dec %ecx
    jnz 4b
    ret
