/* Fills a client's routes from the map. */
#include "route_cache.h"

static void forget_routes(struct sio_client *c)
{
    for (uint32_t i = 0; i < SIO_ROUTE_SLOTS; i++) {
        c->route[i].base = 1;
        c->route[i].last = 0;
        __builtin_memset(c->route[i].reach, 0, sizeof c->route[i].reach);
    }
}

void sio_routes_init(struct sio_client *c)
{
    c->map.generation = ~0ull;
    c->last = c->route;
    forget_routes(c);
}

static uint32_t nearest(const struct sio_client *c, uint64_t shards)
{
    for (uint32_t i = 0; i < c->fabric.shards; i++)
        if (shards >> c->near[i] & 1)
            return c->near[i];
    return (uint32_t)__builtin_ctzll(shards);
}

/* The map's flags, and one that says what else the shard reads. */
static inline uint32_t flags_of(const struct sio_client *c, const struct sio_map_entry *entry, uint32_t shard)
{
    int beside = c->coalesced && sio_load_acquire(&c->fabric.shard[shard].coalesced);
    return (uint16_t)(entry->flags & ~SIO_ROUTE_COALESCED) | (beside ? SIO_ROUTE_COALESCED : 0);
}

/* Whether writes by a route with these flags may be posted with no more ado. */
static inline int posts_at_once(const struct sio_client *c, uint32_t flags)
{
    uint32_t all = SIO_RANGE_POSTED | SIO_RANGE_QUARANTINED | SIO_ROUTE_COALESCED;
    return (flags & all) == SIO_RANGE_POSTED && c->waiter.membarrier;
}

enum sio_route_result sio_routes_find(struct sio_client *c, uint32_t space, uint64_t address, uint64_t last,
                                      struct sio_route *slot)
{
    const struct sio_fabric *f = &c->fabric;
    struct sio_map_entry entry = {0};
    uint64_t before = c->map.generation;
    enum sio_route_result result = sio_map_find(f, &c->map, space, address, last, &entry);

    if (unlikely(c->map.generation != before))
        forget_routes(c);
    if (likely(result == SIO_ROUTED)) {
        uint32_t shard = entry.shards & (entry.shards - 1) ? nearest(c, entry.shards) : (uint32_t)__builtin_ctzll(entry.shards);
        uint32_t flags = flags_of(c, &entry, shard);
        int at_once = posts_at_once(c, flags);
        /* Field by field: a struct put together elsewhere and copied would be read back before its parts have arrived. */
        slot->base = entry.base;
        slot->last = entry.last;
        slot->open = SIO_PENDING(0, shard, 0) | SIO_PENDING_OPEN;
        slot->head = (uint64_t)entry.range << 16;
        if (at_once)
            for (uint32_t size = 1; size <= 8; size *= 2)
                slot->reach[size - 1] = sio_posted_reach(entry.last - entry.base, size);
        else
            __builtin_memset(slot->reach, 0, sizeof slot->reach);
        slot->space = (uint16_t)space;
        slot->flags = (uint16_t)flags;
        slot->shard = shard;
        slot->box = c->shard[shard].box;
        slot->mine = &c->shard[shard];
        slot->command = sio_command(entry.range, 0, 0, 0, space);
    }
    return result;
}
