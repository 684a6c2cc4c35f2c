# A 4-byte write of 0x44332211, then a 4-byte read, two bytes of each on either side of a page's end. KVM splits them.
# Parameters: vcpus (VCPUS, 1), page (PAGE, 0xD0000000: the first of the two pages). Results: +4 what was read.
.include "common.inc"
    guest
    param page, PAGE, 0xD0000000
    begin32
    mov page, %ebx
    movl $0x44332211, 0xFFE(%ebx)
    mov 0xFFE(%ebx), %eax
    results
    mov %eax, 4(%edi)
    finish
