/* `Store` and `Guarded`, the accesses of a device whose state outlives its shard; see persistent.c, and shardio/persistent.py. */
#ifndef SHARDIO_PERSISTENT_H
#define SHARDIO_PERSISTENT_H

#include "layout.h"

#include <errno.h>
#include <stdint.h>

/* The memory: a count, padded to SIO_STORE_HEADER bytes, and two copies of these words, with the state behind. */
#define SIO_STORE_HEADER 64
#define SIO_STORE_REQUEST 0
#define SIO_STORE_ELEMENT 1
#define SIO_STORE_ANSWER 2
#define SIO_STORE_LENGTH 3
#define SIO_STORE_STATE 4

/* Puts both classes into a dictionary, given as its id(). 0 or -ENOMEM. */
int sio_persistent_into(uintptr_t dictionary);
/* From now on a Store, given as its id(), keeps states of at most `size` bytes at `words`; NULL: it is closed. */
void sio_store_open(uintptr_t store, uint64_t *words, uint64_t size, const struct sio_shard_control *control);

#endif
