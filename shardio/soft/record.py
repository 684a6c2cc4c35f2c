"""What the VMM and the workers of a soft machine share: native/soft.h, and the raise page (native/raise.h).

Both are memfds, sealed, so that nobody can take the memory away from under the others. Shards hold the raise
page alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import Any

from shardio._core import ffi, lib
from shardio.closing import Closing
from shardio.errors import HostError, MachineError
from shardio.memory import LOW_MEMORY_END, GuestMemory

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Shared(Closing):
    """A sealed memfd of `size` bytes, mapped: `fd`, and `address`, a cffi pointer to its first byte."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = -1
        try:
            self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            address = lib.sio_soft_map(self.fd, size)
            if address == ffi.NULL:
                raise OSError(ffi.errno, os.strerror(ffi.errno))
        except OSError as error:
            self.close()
            hint = "raise the limits on memory and open files (ulimit -v, -n)"
            raise HostError(f"{size >> 10} KiB of shared memory: {error.strerror}", hint=hint) from error
        # Python's mmap would keep a descriptor open for as long as the memory is mapped.
        self.address: Any = ffi.gc(address, lambda mapped: lib.sio_soft_unmap(mapped, size))
        """Mapped for as long as somebody holds this."""

    def close(self) -> None:
        """Close the descriptor, and let the mapping go. Idempotent."""
        fd, self.fd = self.fd, -1
        self.address = None
        if fd >= 0:
            os.close(fd)


class Record(Closing):
    """The record of a machine with `vcpus` vCPUs over `memory`.

    `apic`: local APICs, and HLT that sleeps. `fd`, `raise_fd`, `rom_fd`: for the workers; `rom_fd` is -1
    without firmware.
    """

    def __init__(self, memory: GuestMemory, vcpus: int, *, apic: bool) -> None:
        if not 0 < vcpus <= lib.SIO_MAX_VCPUS:
            raise MachineError(f"{vcpus} vCPUs", f"use 1 to {lib.SIO_MAX_VCPUS}")
        self.vcpus = vcpus
        self._machine = Shared("shardio-soft", lib.sio_soft_size(vcpus))
        self._rom: Shared | None = None
        try:
            self._raise = Shared("shardio-raise", ffi.sizeof("struct sio_raise"))
        except BaseException:
            self._machine.close()
            raise
        self.view: Any = ffi.cast("struct sio_soft_machine *", self._machine.address)
        """`struct sio_soft_machine *`."""
        self.page: Any = ffi.cast("struct sio_raise *", self._raise.address)
        """`struct sio_raise *`."""
        lib.sio_soft_init(self.view, vcpus)
        self.view.apic = apic
        self.view.memory_size = memory.size
        self.view.low_memory = min(memory.size, LOW_MEMORY_END)

    @property
    def memory(self) -> Any:
        """Whoever holds this may use `view`, and what `vcpu` gives, after `close` too."""
        return self._machine.address

    @property
    def fd(self) -> int:
        """The record's memfd."""
        return self._machine.fd

    @property
    def raise_fd(self) -> int:
        """The raise page's memfd."""
        return self._raise.fd

    @property
    def rom_fd(self) -> int:
        """The firmware's memfd, -1 without one."""
        return -1 if self._rom is None else self._rom.fd

    def vcpu(self, index: int) -> Any:
        """`struct sio_soft *` of a vCPU."""
        return lib.sio_soft_cpu(self.view, index)

    def set_rom(self, base: int, image: bytes) -> None:
        """From now on `image` is read-only memory from guest address `base` on; before the first worker."""
        rom = Shared("shardio-rom", len(image))
        ffi.memmove(rom.address, image, len(image))
        if self._rom is not None:
            self._rom.close()
        self._rom = rom
        self.view.rom_base, self.view.rom_size = base, len(image)

    def set_holes(self, holes: Sequence[range]) -> None:
        """From now on there is no RAM at `holes`, whole pages in address order; before the first worker."""
        for number, hole in enumerate(holes):
            self.view.hole[number].base, self.view.hole[number].size = hole.start, len(hole)
        self.view.holes = len(holes)

    def close(self) -> None:
        """Close the descriptors; mappings go with whoever holds them last. Idempotent."""
        self._machine.close()
        self._raise.close()
        if self._rom is not None:
            self._rom.close()
