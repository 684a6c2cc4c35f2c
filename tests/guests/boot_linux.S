# The code of a bzImage, or a vmlinux: begins 32-bit code at its first byte, 64-bit code at 0x200. Says how the processor
# is, the command line, the initrd, and the memory map, as the boot parameters have them (Documentation/arch/x86/
# zero-page.rst).
# Parameters: none.
.include "boot.inc"

# ESI, or RSI, is at the boot parameters in both.
.macro report_parameters
    mov %esi, %ebx
    mov 0x228(%ebx), %esi               # cmd_line_ptr
    report_text
    mov 0x218(%ebx), %esi               # ramdisk_image, ramdisk_size
    mov 0x21C(%ebx), %ecx
    report_bytes
    lea 0x2D0(%ebx), %esi               # e820_table, e820_entries
    movzbl 0x1E8(%ebx), %ecx
    imul $20, %ecx, %ecx
    report_bytes
    lea 0x70(%ebx), %esi                # acpi_rsdp_addr
    mov $8, %ecx
    report_bytes
    report_end
.endm

    .code32
    .global _start
_start:
    report_state '3'
    report_parameters
    .org 0x200
    .code64
    report_state '6'
    report_parameters
