/* A client's journal, `pending`: what is in flight, and how far the open ring has got (client.h). */
#ifndef SHARDIO_JOURNAL_H
#define SHARDIO_JOURNAL_H

#include "client.h"

/* The ring position that `pending` names, in full: the next one with its low bits, from `posted` on. */
static inline uint64_t position_named(uint64_t pending, uint64_t posted) { return posted + ((pending - posted) & SIO_PENDING_N); }

/* Writes down how far the ring got that `pending` (kind 0, not 0) names. */
static inline void note_posted(struct sio_client *c, uint64_t pending)
{
    uint64_t *posted = &c->shard[pending >> 56 & 63].posted;
    sio_store_release(posted, position_named(pending, *posted));
}

#endif
