/* For the loops' own sources. */
#ifndef SHARDIO_MEASURE_H
#define SHARDIO_MEASURE_H

#include "client.h"

#include "measure.cdef"

/* sio_client_read in untraced.c. */
int sio_untraced_read(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t *data);

/* Notes how long it is since the last sample; returns now. */
static inline uint64_t sio_measure_gap(struct sio_measure_block *b, uint64_t last)
{
    uint64_t now = sio_ticks();
    if (now - last > b->gap)
        b->gap = now - last;
    return now;
}

#endif
