# Something to look at with a debugger: each vCPU calls `bump` COUNT times, then writes 7 to a word of its own.
# Parameters: vcpus (VCPUS, 1), count (COUNT, 3). Results: +4 how often it was bumped, +8 the 7.
.include "common.inc"
    guest
    param count, COUNT, 3
    begin32
    results
    mov count, %ecx
again:
    call bump
    dec %ecx
    jnz again
    movl $7, 8(%edi)
bumped:
    finish
bump:
    incl 4(%edi)
    ret
