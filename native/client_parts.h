/* What the parts of a client's sources share: routes.c (where an access goes), posting.c (the posted path), client.c (the rest).
 *
 * Workers run all of it: no libc call that touches thread-local state.
 */
#ifndef SHARDIO_CLIENT_PARTS_H
#define SHARDIO_CLIENT_PARTS_H

#include "client.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline, cold))

static inline struct sio_vcpu_control *self(struct sio_client *c) { return &c->fabric.vcpu[c->vcpu]; }

/* Between a store that another side looks for and a look at what that side stores. With membarrier the other side, which has the
 * time, executes this side's fence between its own two; without, each side has its own. */
static ALWAYS_INLINE void fence_between(const struct sio_client *c)
{
    if (likely(c->waiter.membarrier))
        sio_fence_compiler();
    else
        sio_fence_full();
}

static inline uint32_t log2_of(uint32_t size) { return (uint32_t)__builtin_ctz(size); }

/* ---- routes (routes.c) ----------------------------------------------------------------------------------------------- */

void sio_routes_init(struct sio_client *client);
/* Looks the map up for an access whose route is not kept, and keeps what it finds in `slot`. */
enum sio_route_result sio_routes_find(struct sio_client *client, uint32_t space, uint64_t address, uint64_t last,
                                      struct sio_route *slot);

#define SIO_ROUTE_COALESCED 0x8000u /* beside the map's flags: the shard has writes in the coalesced ring too */

static inline uint32_t slot_of(uint32_t space, uint64_t address)
{
    uint32_t half = SIO_ROUTE_SLOTS / 2;
    return space == SIO_PIO ? (uint32_t)(address >> 1) & (half - 1)
                            : half + ((uint32_t)(address >> 3 ^ address >> 8 ^ address >> 12) & (half - 1));
}

/* The only place where the route of an access may be kept. */
static inline struct sio_route *route_at(struct sio_client *c, uint32_t space, uint64_t address)
{
    struct sio_route *to = &c->route[slot_of(space, address)];
    __asm__("" : "+r"(to)); /* in one register: else its address is worked out anew for each member */
    return to;
}

/* The routes kept are those of the live map. */
static inline int current(const struct sio_client *c)
{
    return sio_load_acquire(&c->fabric.map->generation) == c->map.generation; /* SP-MAP */
}

static inline int covers(const struct sio_route *route, uint64_t address, uint64_t last)
{
    return route->base <= address && last <= route->last && address <= last;
}

static inline enum sio_route_result find(struct sio_client *c, uint32_t space, uint64_t address, uint64_t last,
                                         struct sio_route **route)
{
    struct sio_route *slot = *route = route_at(c, space, address);
    if (likely(current(c) && covers(slot, address, last)))
        return SIO_ROUTED;
    return sio_routes_find(c, space, address, last, slot);
}

/* ---- doorbells and rings (posting.c) --------------------------------------------------------------------------------- */

/* Rings a shard's doorbell, unless it has been rung in this need_wakeup. */
void sio_doorbell(struct sio_client *client, uint32_t shard, uint64_t need_wakeup);

/* An odd need_wakeup means that the owner sleeps. */
static inline void ring_if_asleep(struct sio_client *c, uint32_t shard)
{
    uint64_t need_wakeup = sio_load_relaxed(c->shard[shard].need_wakeup);
    if (unlikely(need_wakeup & 1))
        sio_doorbell(c, shard, need_wakeup);
}

/* For whoever watches how long this client waits, and for whom. */
static inline void set_target(struct sio_client *c, uint32_t shard)
{
    if (unlikely(c->target != shard))
        sio_store_relaxed(&c->target, shard);
}

/* The ring position that `pending` names, in full: the next one with its low bits, from `posted` on. */
static inline uint64_t position_named(uint64_t pending, uint64_t posted) { return posted + ((pending - posted) & SIO_PENDING_N); }

/* Writes down how far the ring got that `pending` (kind 0, not 0) names. */
static inline void note_posted(struct sio_client *c, uint64_t pending)
{
    uint64_t *posted = &c->shard[pending >> 56 & 63].posted;
    sio_store_release(posted, position_named(pending, *posted));
}

/* Into the open ring, in which there is room. `pending` names the position already. */
static inline void put(struct sio_client *c, const struct sio_route *to, uint64_t position, uint64_t offset, uint32_t size,
                       uint64_t data)
{
    sio_posted_push((struct sio_posted *)(c->open.origin + position * sizeof(struct sio_posted)), c->open.lap | to->head, offset,
                    log2_of(size), data);
}

/* A posted write with all that may be in its way. Its access is begun (SIO_PENDING_NONE). */
enum sio_outcome sio_post(struct sio_client *client, struct sio_route *to, uint64_t address, uint32_t size, uint64_t data);

#endif
