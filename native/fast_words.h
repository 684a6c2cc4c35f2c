/* The base class `FastWords`; see fast_words.c, and shardio/fast_words.py, its face. */
#ifndef SHARDIO_FAST_WORDS_H
#define SHARDIO_FAST_WORDS_H

#include "layout.h"

#include <errno.h>
#include <stdint.h>

/* Puts the class into a dictionary, given as its id(). 0 or -ENOMEM. */
int sio_fast_words_into(uintptr_t dictionary);
/* From now on a device of that class moves the bytes of an object, both given as their id(); 0: of none. -EINVAL: it has none that
 * can be written. */
int sio_fast_words_show(uintptr_t device, uintptr_t block);
/* Each quick move counts together with the name of its access, by one store into `mark` (seven words: shardio/mark.py);
 * NULL: no move does. */
void sio_fast_words_keep(uintptr_t device, uint64_t *mark, const struct sio_shard_control *control);

#endif
