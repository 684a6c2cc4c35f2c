/* The routes that a client keeps: entries of the map that it hit, one place for each hash of an address. */
#ifndef SHARDIO_ROUTE_CACHE_H
#define SHARDIO_ROUTE_CACHE_H

#include "client.h"
#include "compiler.h"

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

#endif
