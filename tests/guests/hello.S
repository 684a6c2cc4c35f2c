# Writes "Hello from the guest\n" to a serial port, a byte an OUT, and exits.
# Parameters: vcpus (ignored), port (PORT, 0x3F8).
.include "common.inc"
    guest
    param port, PORT, 0x3F8
    begin32
    mov $text, %esi
    mov port, %edx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  finish
text:
    .asciz "Hello from the guest\n"
