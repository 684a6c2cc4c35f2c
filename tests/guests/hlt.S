# Halts with interrupts off: KVM_EXIT_HLT without an in-kernel interrupt controller, asleep in the kernel with one.
# Parameters: vcpus (ignored).
.include "common.inc"
    guest
    begin16
1:  hlt
    jmp 1b
