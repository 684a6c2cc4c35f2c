# Sleeps in HLT and is woken by UART receive (IRQ 4) and RTC periodic (IRQ 8) interrupts through the PICs; echoes each
# byte that it receives; exits when it had enough of both. Needs the in-kernel interrupt controller.
# Parameters: vcpus (ignored), uart_count (UART_COUNT, 1: bytes to receive, at most 256), rtc_count (RTC_COUNT, 0:
# ticks to wait for), uart (UART, 0x3F8), rtc_rate (RTC_RATE, 0x26: register A), rtc_control (RTC_CONTROL, 0x42:
# register B, while rtc_count is not 0).
# Results: +4 bytes received, +8 RTC ticks, +12 UART interrupts, +16 wake-ups from HLT; the bytes from 0x9100 on.
.include "common.inc"
    guest
    param uart_count, UART_COUNT, 1
    param rtc_count, RTC_COUNT, 0
    param uart, UART, 0x3F8
    param rtc_rate, RTC_RATE, 0x26
    param rtc_control, RTC_CONTROL, 0x42
    begin16
    movw $on_uart, 0x0C * 4
    movw $0, 0x0C * 4 + 2
    movw $on_rtc, 0x70 * 4
    movw $0, 0x70 * 4 + 2
    xor %eax, %eax
    mov %eax, RESULTS + 4
    mov %eax, RESULTS + 8
    mov %eax, RESULTS + 12
    mov %eax, RESULTS + 16

    mov $0x11, %al                      # 8259A: edge, cascaded, vectors 0x08 and 0x70
    out %al, $0x20
    out %al, $0xA0
    mov $0x08, %al
    out %al, $0x21
    mov $0x70, %al
    out %al, $0xA1
    mov $4, %al
    out %al, $0x21
    mov $2, %al
    out %al, $0xA1
    mov $1, %al
    out %al, $0x21
    out %al, $0xA1
    mov $0xEB, %al                      # IRQ 4 and the cascade
    out %al, $0x21
    mov $0xFE, %al                      # IRQ 8
    out %al, $0xA1

    mov uart, %dx
    add $3, %dx
    mov $0x03, %al                      # LCR: 8N1
    out %al, %dx
    inc %dx
    mov $0x0B, %al                      # MCR: DTR, RTS, OUT2 (which lets the interrupt out)
    out %al, %dx
    sub $3, %dx
    mov $0x01, %al                      # IER: received data
    out %al, %dx

    cmpl $0, rtc_count
    je 1f
    mov $0x0A, %al
    out %al, $0x70
    mov rtc_rate, %al
    out %al, $0x71
    mov $0x0B, %al
    out %al, $0x70
    mov rtc_control, %al
    out %al, $0x71
    mov $0x0C, %al                      # a read of register C lets the next one come
    out %al, $0x70
    in $0x71, %al

1:  cli
    mov uart_count, %eax
    cmp %eax, RESULTS + 4
    jb 2f
    mov rtc_count, %eax
    cmp %eax, RESULTS + 8
    jae 3f
2:  sti                                 # takes effect after HLT has begun: no wake-up is lost
    hlt
    incl RESULTS + 16
    jmp 1b

3:
    movl $1, RESULTS
    xor %al, %al
    mov $EXIT_PORT, %dx
    out %al, %dx
4:  cli
    hlt
    jmp 4b

on_uart:
    push %eax
    push %ebx
    push %dx
    incl RESULTS + 12
    mov uart, %dx
    add $2, %dx
    in %dx, %al                         # IIR
    add $3, %dx
1:  in %dx, %al                         # LSR: data ready
    test $1, %al
    jz 2f
    sub $5, %dx
    in %dx, %al
    mov RESULTS + 4, %bx
    mov %al, 0x9100(%bx)
    incl RESULTS + 4
    out %al, %dx
    add $5, %dx
    jmp 1b
2:  mov $0x20, %al
    out %al, $0x20
    pop %dx
    pop %ebx
    pop %eax
    iretw

on_rtc:
    push %ax
    mov $0x0C, %al
    out %al, $0x70
    in $0x71, %al
    incl RESULTS + 8
    mov $0x20, %al
    out %al, $0xA0
    out %al, $0x20
    pop %ax
    iretw
