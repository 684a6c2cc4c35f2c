/* The base class `FastRegisters`; see fast_registers.c, and shardio/fast_registers.py, its face. */
#ifndef SHARDIO_FAST_REGISTERS_H
#define SHARDIO_FAST_REGISTERS_H

#include "layout.h"

#include <errno.h>
#include <stdint.h>

/* Puts the class into a dictionary, given as its id(). 0 or -ENOMEM. */
int sio_fast_registers_into(uintptr_t dictionary);
/* From now on a device of that class, given as its id(), gathers in `ring` (`size` bytes, a power of two) which outlives its process:
 * each byte counts together with the name of its access, by one store into `mark` (seven words: shardio/mark.py).
 * Size 0: into its bytearray again. */
void sio_fast_registers_keep(uintptr_t device, uint8_t *ring, uint64_t size, uint64_t *mark, const struct sio_shard_control *control);

#endif
