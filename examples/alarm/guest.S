# Sets the alarm, halts until it rings, and prints a line; three times. In real mode, with the interrupt
# controller (8259) set up so that line 5 is vector 0x25.
.set ALARM, 0x300
.set CONSOLE, 0x3F8
.set EXIT, 0xF4
.set VECTOR, 0x25

        .code16
        .global _start
_start: cli
        xor %ax, %ax
        mov %ax, %ds
        mov %ax, %ss
        mov $0x8000, %sp
        movw $handler, VECTOR * 4
        movw %ax, VECTOR * 4 + 2

        mov $0x11, %al              # ICW1: edge-triggered, cascaded, ICW4 follows
        out %al, $0x20
        mov $0x20, %al              # ICW2: line 0 is vector 0x20
        out %al, $0x21
        mov $4, %al                 # ICW3: the other controller is at line 2
        out %al, $0x21
        mov $1, %al                 # ICW4: 8086 mode
        out %al, $0x21
        mov $0xDF, %al              # all lines but 5 are masked
        out %al, $0x21

        mov $3, %bx
1:      mov $ALARM, %dx
        mov $2, %al                 # in two ticks
        out %al, %dx
        sti
        hlt                         # no exit to the host's user space while it waits
        cli
        dec %bx
        jnz 1b

        mov $EXIT, %dx
        xor %al, %al
        out %al, %dx
2:      hlt                         # the machine is about to end
        jmp 2b

handler:
        mov $text, %si
        mov $text_end - text, %cx
        mov $CONSOLE, %dx
        rep outsb
        mov $0x20, %al              # end of interrupt
        out %al, $0x20
        iret

text:   .ascii "the alarm rang\n"
text_end:
