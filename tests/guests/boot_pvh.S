# A PVH guest: says how the processor is, CR0, the command line, the first module's bytes and command line, the memory
# map and the address of the RSDP, as hvm_start_info has them (Xen, public/arch-x86/hvm/start_info.h).
# Parameters: none.
.include "boot.inc"
    .code32
    .global _start
_start:
    report_state '3'
    mov %cr0, %eax
    report_word
    cmpl $0x336EC578, (%ebx)            # magic
    jne done
    cmpl $1, 4(%ebx)                    # version
    jne done
    mov 24(%ebx), %esi                  # cmdline_paddr
    report_text
    mov 16(%ebx), %edi                  # modlist_paddr
    mov (%edi), %esi                    # paddr, size, cmdline_paddr of 8 bytes each
    mov 8(%edi), %ecx
    report_bytes
    mov 16(%edi), %esi
    report_text
    mov 40(%ebx), %esi                  # memmap_paddr
    imul $24, 48(%ebx), %ecx            # memmap_entries
    report_bytes
    lea 32(%ebx), %esi                  # rsdp_paddr
    mov $8, %ecx
    report_bytes
done:
    report_end
