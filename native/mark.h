/* A number that counts together with the name of the access that set it: `Mark` of shardio/mark.py. */
#ifndef SHARDIO_MARK_H
#define SHARDIO_MARK_H

#include "layout.h"
#include "order.h"

#include <stdint.h>

/* `mark` has seven words: a count, and two copies of a name (request, element) and a number, of which the count's low bit tells
 * the one that counts. The other one is written, and then counts, by the last of these stores. */
static inline void sio_mark_set(uint64_t *mark, const struct sio_shard_control *control, uint64_t number)
{
    uint64_t count = mark[0] + 1, *copy = &mark[1 + 3 * (count & 1)];
    copy[0] = sio_load_relaxed(&control->taken);
    copy[1] = sio_load_relaxed(&control->element);
    copy[2] = number;
    sio_store_release(&mark[0], count);
}

#endif
