/* The posted path: a ring of 32-byte slots per (vCPU, shard), one producer, one consumer.
 *
 * Facts. A head and a tail index that both sides read cost two more line transfers a message. A lap number in the slot
 * itself tells the consumer that the slot is filled, so a message costs its own line only, and two slots share one. The
 * consumer keeps one word, `taken`, in a line of its own; the producer looks at it only when its cached copy says that
 * the ring is full, so that line moves once a lap.
 *
 * Consequences. The producer's head and the consumer's cursor are private; `taken` is also the journal: it is advanced
 * before the handler runs, so a write is applied zero or one time and a successor starts where its predecessor stopped.
 */
#ifndef SHARDIO_POSTED_H
#define SHARDIO_POSTED_H

#include "fabric.h"

/* The lap of a position: never 0, so that a zeroed ring is an empty one, until 2^32 laps have passed. */
static inline uint32_t sio_posted_lap(const struct sio_fabric *f, uint64_t position)
{
    return (uint32_t)(position / f->posted_slots) + 1u;
}

static inline struct sio_posted *sio_posted_slot(const struct sio_fabric *f, struct sio_posted *ring, uint64_t position)
{
    return &ring[position & (f->posted_slots - 1)];
}

static inline void sio_posted_push(const struct sio_fabric *f, struct sio_posted *ring, uint64_t position,
                                   const struct sio_posted *message)
{
    struct sio_posted *slot = sio_posted_slot(f, ring, position);
    slot->range = message->range;
    slot->address = message->address;
    slot->data = message->data;
    slot->size = message->size;
    slot->space = message->space;
    sio_store_release(&slot->lap, sio_posted_lap(f, position)); /* SP-POST */
}

/* The consumer's look: non-zero and a copy when `position` is there. */
static inline int sio_posted_poll(const struct sio_fabric *f, struct sio_posted *ring, uint64_t position,
                                  struct sio_posted *message)
{
    const struct sio_posted *slot = sio_posted_slot(f, ring, position);
    if (sio_load_acquire(&slot->lap) != sio_posted_lap(f, position)) /* SP-POST */
        return 0;
    message->range = sio_load_relaxed(&slot->range);
    message->address = sio_load_relaxed(&slot->address);
    message->data = sio_load_relaxed(&slot->data);
    message->size = sio_load_relaxed(&slot->size);
    message->space = sio_load_relaxed(&slot->space);
    return 1;
}

#endif
