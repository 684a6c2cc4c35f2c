/* The posted path: a write goes into the ring of its shard, and nobody waits for it. */
#ifndef SHARDIO_POSTING_H
#define SHARDIO_POSTING_H

#include "doorbell.h"
#include "route_cache.h"

static inline uint32_t log2_of(uint32_t size) { return (uint32_t)__builtin_ctz(size); }

/* Into the open ring, in which there is room. `pending` names the position already. */
static inline void put(struct sio_client *c, const struct sio_route *to, uint64_t position, uint64_t offset, uint32_t size,
                       uint64_t data)
{
    sio_posted_push((struct sio_posted *)(c->open.origin + position * sizeof(struct sio_posted)), c->open.lap | to->head, offset,
                    log2_of(size), data);
}

/* Whether a write by this route may be posted now. Not while the shard has not taken yet what this vCPU may have written before,
 * in KVM's coalesced ring: then it waits its turn. */
static ALWAYS_INLINE int posts_now(const struct sio_client *c, const struct sio_route *to, uint64_t address)
{
    if (!(to->flags & SIO_RANGE_POSTED) || address - to->base >= SIO_POSTED_OFFSET)
        return 0;
    return likely(!(to->flags & SIO_ROUTE_COALESCED)) ||
           sio_load_relaxed(&c->coalesced[0]) == sio_load_acquire(&c->coalesced[1]); /* SP-COALESCED */
}

/* A posted write with all that may be in its way. Its access is begun (SIO_PENDING_NONE). */
enum sio_outcome sio_post(struct sio_client *client, struct sio_route *to, uint64_t address, uint32_t size, uint64_t data);

/* Whether a write by this route is posted with no more ado where its ring is open and has room. */
static inline int posts(const struct sio_route *to, uint32_t space, uint64_t address, uint32_t size)
{
    return size - 1 < 8 && address - to->base < to->reach[size - 1] && space == to->space;
}

enum sio_at_once { SIO_POSTED, SIO_POSTED_UNHEARD, SIO_NOT_POSTED };

/* A write by a route that posts it at once, if its ring is open and has room: four stores, some forty instructions, and no register to
 * save where all else that the caller does is a tail call. The journal is marked before the route is known to be right: where it is
 * not, the mark is taken back, and nothing was published. SIO_POSTED_UNHEARD: the owner sleeps. `complete`: the access ends here, unless
 * the owner sleeps. */
static ALWAYS_INLINE enum sio_at_once post_at_once(struct sio_client *c, const struct sio_route *to, uint64_t address, uint32_t size,
                                                   uint64_t data, int complete)
{
    uint64_t pending = c->pending, n = pending ^ to->open;
    if (unlikely(n >= c->open.limit)) /* where another ring is open, or none, n has other bits */
        return SIO_NOT_POSTED;
    sio_store_relaxed(&c->pending, pending | SIO_PENDING(SIO_PENDING_POSTED, 0, 0)); /* SP-QUIESCE, with the VMM's membarrier */
    sio_fence_compiler();
    if (unlikely(!current(c))) {
        sio_store_relaxed(&c->pending, pending);
        return SIO_NOT_POSTED;
    }
    put(c, to, n, address - to->base, size, data);
    sio_fence_compiler(); /* SP-WAKEUP: the owner's membarrier, between its announcement and its last look, fences this side */
    if (unlikely(sio_load_relaxed(c->open.need_wakeup) & 1))
        return SIO_POSTED_UNHEARD;
    if (complete)
        sio_store_release(&c->pending, pending + 1); /* SP-QUIESCE */
    return SIO_POSTED;
}

#endif
