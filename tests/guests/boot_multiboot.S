# A Multiboot guest: says how the processor is, EAX, the flags, the memory sizes, the command line, the first module's
# bytes and command line, and the memory map, as the information structure has them (Multiboot 0.6.96, 3.3).
# Parameters: none.
.include "boot.inc"
    .code32
    .global _start
_start:
    mov %eax, %ebp
    report_state '3'
    mov %ebp, %eax
    report_word
    mov %ebx, %esi                      # flags, mem_lower, mem_upper
    mov $12, %ecx
    report_bytes
    mov 16(%ebx), %esi                  # cmdline
    report_text
    mov 24(%ebx), %edi                  # mods_addr: start, end, string
    mov (%edi), %esi
    mov 4(%edi), %ecx
    sub %esi, %ecx
    report_bytes
    mov 8(%edi), %esi
    report_text
    mov 48(%ebx), %esi                  # mmap_addr, mmap_length
    mov 44(%ebx), %ecx
    report_bytes
    report_end
