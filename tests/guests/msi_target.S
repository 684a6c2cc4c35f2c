# vCPU 0 tells a device where its message goes, an APIC id and VECTOR of irq.inc, and has it sent `count` times, each after the
# last one has arrived.
# Parameters: vcpus (VCPUS, 1), mode (MODE, 3) and irq (unused), address (ADDRESS, 0xD0000000), target (TARGET, 0: APIC id),
# count (COUNT, 10). A device: +0 message address, +4 its data, +8 send.
# Results, of each vCPU: +4 interrupts.
.include "common.inc"
.include "irq.inc"
    guest
    param mode, MODE, MESSAGE
    param irq, IRQ, 5
    param address, ADDRESS, 0xD0000000
    param target, TARGET, 0
    param count, COUNT, 10
    begin32
    results
    test %ebp, %ebp
    jnz other
    irq_begin on_irq
    mov address, %edx
    mov target, %eax
    mov %eax, %esi
    shl $12, %eax
    or $LAPIC, %eax
    mov %eax, (%edx)
    movl $VECTOR, 4(%edx)
    shl $6, %esi
    add $RESULTS, %esi                  # the target's results
    mov vcpus, %ecx
    lea -1(%ecx), %ecx
1:  cmp ready, %ecx                     # the others can take interrupts
    jne 1b
    xor %ebx, %ebx
    sti
2:  mov %ebx, 8(%edx)
3:  cmp 4(%esi), %ebx
    je 3b
    inc %ebx
    cmp count, %ebx
    jb 2b
    cli
    movl $1, stopped
end:
    finish
other:
    irq_here
    movl $0x1FF, LAPIC + 0xF0
    lock incl ready
    sti
4:  cmpl $0, stopped
    je 4b
    cli
    jmp end

on_irq:
    push %eax
    push %edi
    mov LAPIC + 0x20, %edi
    shr $24, %edi
    shl $6, %edi
    incl RESULTS + 4(%edi)
    movl $0, LAPIC + 0xB0
    pop %edi
    pop %eax
    irq_return
    irq_data
ready:
    .long 0
stopped:
    .long 0
