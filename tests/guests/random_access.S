# The soak: every vCPU makes `count` random accesses - ports and memory, both directions, each width, strings - to its own
# part of the ranges, and keeps a checksum of all that it read. `model.py` makes the same accesses on the host.
# Parameters: vcpus (VCPUS, 1), count (COUNT, 1000), seed (SEED, 1), pio_stride (PIO_STRIDE, 0) and mmio_stride
# (MMIO_STRIDE, 0): added to the addresses once per vCPU number; nranges (NRANGES, 1; 1 to 8), then 8 ranges of three
# words: kind (Rn_KIND: 0x10 memory, else ports; + 0x08: strings too), base (Rn_BASE), mask (Rn_MASK, below 0x10000: the
# offset is a random number and this; an access reaches at most 32 bytes from there).
# Results: +4 the checksum, +8 accesses made, +12 the generator's state.
.include "common.inc"
    guest
    param count, COUNT, 1000
    param seed, SEED, 1
    param pio_stride, PIO_STRIDE, 0
    param mmio_stride, MMIO_STRIDE, 0
    param nranges, NRANGES, 1
ranges:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    param r\n\()_kind, R\n\()_KIND, 0x18
    param r\n\()_base, R\n\()_BASE, 0xD0000000
    param r\n\()_mask, R\n\()_MASK, 0xFF
    .endr

# EBX, the generator's state, goes one step.
.macro step
    imul $1664525, %ebx, %ebx
    add $1013904223, %ebx
.endm

# EAX goes into the checksum.
.macro fold
    xor 4(%ebp), %eax
    imul $16777619, %eax, %eax
    mov %eax, 4(%ebp)
.endm

# ECX: elements of a string, 1 to 8, of the step that gave the offset.
.macro elements
    mov %ebx, %ecx
    shr $28, %ecx
    and $7, %ecx
    inc %ecx
.endm

# As many random words in the string buffer as the string has elements.
.macro fill
    mov 16(%ebp), %edi
1:  step
    mov %ebx, (%edi)
    add $4, %edi
    dec %ecx
    jnz 1b
.endm

# One access of the width whose suffix and accumulator are given, in the four ways a range knows.
.macro handlers suffix, accumulator
pio_read_\suffix:
    add 20(%ebp), %edx
    xor %eax, %eax
    in %dx, \accumulator
    fold
    jmp next
pio_write_\suffix:
    add 20(%ebp), %edx
    step
    mov %ebx, %eax
    out \accumulator, %dx
    jmp next
mmio_read_\suffix:
    add 24(%ebp), %edx
    xor %eax, %eax
    mov (%edx), \accumulator
    fold
    jmp next
mmio_write_\suffix:
    add 24(%ebp), %edx
    step
    mov %ebx, %eax
    mov \accumulator, (%edx)
    jmp next
pio_ins_\suffix:
    add 20(%ebp), %edx
    elements
    mov %ecx, 28(%ebp)
    mov 16(%ebp), %edi
    rep ins\suffix
    jmp fold_\suffix
pio_outs_\suffix:
    add 20(%ebp), %edx
    elements
    mov %ecx, 28(%ebp)
    fill
    mov 28(%ebp), %ecx
    mov 16(%ebp), %esi
    rep outs\suffix
    jmp next
mmio_ins_\suffix:
    add 24(%ebp), %edx
    elements
    mov %ecx, 28(%ebp)
    mov %edx, %esi
    mov 16(%ebp), %edi
    rep movs\suffix
fold_\suffix:
    mov 28(%ebp), %ecx
    mov 16(%ebp), %esi
1:  xor %eax, %eax
    lods\suffix
    fold
    dec %ecx
    jnz 1b
    jmp next
mmio_outs_\suffix:
    add 24(%ebp), %edx
    elements
    mov %ecx, 28(%ebp)
    fill
    mov 28(%ebp), %ecx
    mov 16(%ebp), %esi
    mov %edx, %edi
    rep movs\suffix
    jmp next
.endm

    begin32
    cld
    mov %ebp, %eax
    imul $0x9E3779B9, %eax, %ebx
    add seed, %ebx
    results
    mov %ebp, %eax
    shl $12, %eax
    add $BUFFERS, %eax
    mov %eax, 16(%edi)
    mov pio_stride, %eax
    imul %ebp, %eax
    mov %eax, 20(%edi)
    mov mmio_stride, %eax
    imul %ebp, %eax
    mov %eax, 24(%edi)
    movl $2166136261, 4(%edi)
    movl $-1, 8(%edi)
    mov %edi, %ebp

next:
    incl 8(%ebp)
    mov count, %eax
    cmp %eax, 8(%ebp)
    je end
    step
    mov %ebx, %eax                      # the range: the high byte, scaled to how many there are
    shr $24, %eax
    imul nranges, %eax
    shr $8, %eax
    lea (%eax, %eax, 2), %ecx
    lea ranges(, %ecx, 4), %ecx
    mov %ebx, %edi                      # the way: bits 16-17 width, 18 write, 19 string
    shr $16, %edi
    and $0xF, %edi
    mov (%ecx), %eax
    or $7, %eax
    and %eax, %edi
    and $0x10, %eax
    or %eax, %edi
    step
    mov %ebx, %edx
    shr $16, %edx
    and 8(%ecx), %edx
    add 4(%ecx), %edx
    jmp *ways(, %edi, 4)

    handlers b, %al
    handlers w, %ax
    handlers l, %eax

end:
    mov %ebx, 12(%ebp)
    sub $RESULTS, %ebp
    shr $6, %ebp
    finish

    .balign 4
ways:
    .long pio_read_b, pio_read_w, pio_read_l, pio_read_l
    .long pio_write_b, pio_write_w, pio_write_l, pio_write_l
    .long pio_ins_b, pio_ins_w, pio_ins_l, pio_ins_l
    .long pio_outs_b, pio_outs_w, pio_outs_l, pio_outs_l
    .long mmio_read_b, mmio_read_w, mmio_read_l, mmio_read_l
    .long mmio_write_b, mmio_write_w, mmio_write_l, mmio_write_l
    .long mmio_ins_b, mmio_ins_w, mmio_ins_l, mmio_ins_l
    .long mmio_outs_b, mmio_outs_w, mmio_outs_l, mmio_outs_l
