/* A port's accesses as methods of a Python type. */
#ifndef SHARDIO_PYCALLS_H
#define SHARDIO_PYCALLS_H

#include <stdint.h>

/* Puts the type into the dict `into` under the name "Calls". `outcomes`: a tuple of what its methods return for each enum sio_outcome.
 * Both are the id() of an object; the tuple is kept for ever. Zero, or -1 where there is no memory. */
int sio_py_calls(uintptr_t into, uintptr_t outcomes);

#endif
