# Faults without an IDT: KVM_EXIT_SHUTDOWN.
# Parameters: vcpus (VCPUS, 1).
.include "common.inc"
    guest
    begin32
    lidtl empty
    ud2
empty:
    .word 0
    .long 0
park:
    cli
    hlt
    jmp park
