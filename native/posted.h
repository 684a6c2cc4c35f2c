/* The posted path: a ring of 16-byte slots per (vCPU, shard), one producer, one consumer.
 *
 * Facts. A head and a tail index that both sides read cost two more line transfers a message. A lap number in the slot
 * itself tells the consumer that the slot is filled, so a message costs its own line only, and four slots share one. A
 * consumer that polls right behind the producer takes each line away between its slots: four times the transfers. A store
 * to a line that the consumer has read holds up all stores behind it (client.h).
 *
 * Consequences. The producer's head and the consumer's cursor are private. The consumer returns credits lazily, in a line
 * that the producer looks at only when its cached copy says that the ring is full; it comes back for more only every few
 * polls; it fetches the lines ahead. `taken` is the journal: it is advanced before the handler runs, so a write is applied
 * zero or one time and a successor starts where its predecessor stopped.
 */
#ifndef SHARDIO_POSTED_H
#define SHARDIO_POSTED_H

#include "fabric.h"

#define SIO_AHEAD 8u         /* slots that the consumer fetches ahead */

/* The lap of a position. A slot holds this lap or the one before; a zeroed ring is an empty one. */
static inline uint16_t sio_posted_lap(const struct sio_fabric *f, uint64_t position)
{
    return (uint16_t)((position >> f->posted_shift) + 1u);
}

static inline struct sio_posted *sio_posted_slot(const struct sio_fabric *f, struct sio_posted *ring, uint64_t position)
{
    return &ring[position & (f->posted_slots - 1)];
}

/* How many offsets, from 0 on, a write of `size` bytes may have that ends at `last` at the latest: so many as a slot can hold. */
static inline uint32_t sio_posted_reach(uint64_t last, uint32_t size)
{
    if (last < size - 1)
        return 0;
    last -= size - 1;
    return last < SIO_POSTED_OFFSET ? (uint32_t)last + 1 : SIO_POSTED_OFFSET;
}

/* A posted write as the consumer copied it. */
struct sio_posted_write {
    uint64_t data;
    uint32_t offset;
    uint16_t range;
    uint8_t size;
};

/* `lap_and_range`: the slot's lap, and above it the range. */
static inline void sio_posted_push(struct sio_posted *slot, uint64_t lap_and_range, uint64_t offset, uint32_t log2_size,
                                   uint64_t data)
{
    sio_store_relaxed(&slot->data, data);
    sio_store_release(&slot->head, lap_and_range | (uint64_t)log2_size << 32 | offset << 34); /* SP-POST */
}

/* The consumer's look: non-zero and a copy when `position` is there. */
static inline int sio_posted_poll(const struct sio_fabric *f, struct sio_posted *ring, uint64_t position,
                                  struct sio_posted_write *write)
{
    const struct sio_posted *slot = sio_posted_slot(f, ring, position);
    uint64_t head = sio_load_acquire(&slot->head); /* SP-POST */
    if ((uint16_t)head != sio_posted_lap(f, position))
        return 0;
    write->data = sio_load_relaxed(&slot->data);
    write->range = (uint16_t)(head >> 16);
    write->offset = (uint32_t)(head >> 34);
    write->size = (uint8_t)(1u << (head >> 32 & 3));
    return 1;
}

#endif
