/* The base class `FastRegisters`; see fast_registers.c, and shardio/fast_registers.py, its face. */
#ifndef SHARDIO_FAST_REGISTERS_H
#define SHARDIO_FAST_REGISTERS_H

#include <errno.h>
#include <stdint.h>

/* Puts the class into a dictionary, given as its id(). 0 or -ENOMEM. */
int sio_fast_registers_into(uintptr_t dictionary);

#endif
