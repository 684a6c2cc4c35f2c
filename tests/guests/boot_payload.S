# A coreboot payload: says how the processor is, and what is at 0xF0000: the header of coreboot's table and its one
# record (coreboot, src/commonlib/include/commonlib/coreboot_tables.h).
# Parameters: none.
.include "boot.inc"
    .code32
    .global _start
_start:
    report_state '3'
    mov $0xF0000, %ebx
    mov %ebx, %esi
    mov 4(%ebx), %ecx                   # header_bytes
    add 12(%ebx), %ecx                  # table_bytes
    report_bytes
    report_end
