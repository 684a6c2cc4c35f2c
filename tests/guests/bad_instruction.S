# Loads an 80-bit float from a memory-mapped address, which KVM's emulator cannot do: KVM_EXIT_INTERNAL_ERROR.
# Parameters: vcpus (VCPUS, 1), address (ADDRESS, 0xD0000000).
.include "common.inc"
    guest
    param address, ADDRESS, 0xD0000000
    begin32
    mov address, %ebx
    fldt (%ebx)
park:
    cli
    hlt
    jmp park
