/* The address map: which shard answers an address. Written by the VMM, looked up by every client.
 *
 * Two sides; the live one is generation & 1. The VMM fills the other, bumps the generation, fences every client
 * (membarrier; where there is none, a client fences itself when it begins an access) and waits until none is still inside an
 * access that began before (SP-QUIESCE): only then does it tell a shard to drop a device, or reuse the side. A client keeps the entries it hit last, and forgets them at a new generation.
 *
 * Facts. Bisecting 10,000 ranges is 14 loads that wait for each other, from the second-level cache: as long as a round
 * trip between two CPUs that share it. Machines with many devices place them evenly.
 * Consequences. The first probe is where the address would be if they all were; bisection follows where it is not. A place
 * of the map has what nearly every range needs, in a quarter of a line; what few need is elsewhere.
 */
#ifndef SHARDIO_ROUTE_H
#define SHARDIO_ROUTE_H

#include "fabric.h"

#define SIO_ROUTE_RETRIES 64u

enum sio_route_result { SIO_ROUTED, SIO_UNCLAIMED, SIO_CROSSING };

static inline struct sio_map_side *sio_map_side(const struct sio_fabric *f, uint32_t which)
{
    uint64_t places = ((uint64_t)f->ranges * sizeof(struct sio_map_place) + SIO_LINE - 1) / SIO_LINE * SIO_LINE;
    return (struct sio_map_side *)((uint8_t *)f->map + sizeof *f->map + which * (sizeof(struct sio_map_side) + places));
}

static inline struct sio_map_place *sio_map_places(struct sio_map_side *side) { return (struct sio_map_place *)(side + 1); }

/* The wide entry of a side's place. */
static inline struct sio_map_entry *sio_map_wide(const struct sio_fabric *f, uint32_t which, uint32_t place)
{
    return &f->wide[(uint64_t)which * f->ranges + place];
}

static inline uint64_t sio_place_rest(uint64_t size_less_1, uint32_t range, uint32_t shard, uint32_t flags)
{
    return size_less_1 | (uint64_t)range << 32 | (uint64_t)shard << 48 | (uint64_t)flags << 56;
}

/* The last of n > 0 places with base <= address; the first one has one. Branch-free halving. */
static inline const struct sio_map_place *sio_map_bisect(const struct sio_map_place *first, uint32_t n, uint64_t address)
{
    while (n > 1) { /* invariant: first->base <= address */
        uint32_t half = n / 2;
        first = sio_load_relaxed(&first[half].base) <= address ? first + half : first;
        n -= half;
    }
    return first;
}

/* A client's copy of the live side's head, checked once a generation. */
struct sio_map_view {
    uint64_t generation;           /* ~0: none */
    struct {
        const struct sio_map_place *first;
        uint64_t base;             /* of the first place */
        uint64_t scale;
        uint32_t n;                /* places, not beyond the map */
    } of[2];                       /* by space */
};

static inline void sio_map_view(const struct sio_fabric *f, struct sio_map_view *view, uint64_t generation)
{
    struct sio_map_side *side = sio_map_side(f, generation & 1);
    uint32_t pio = sio_load_relaxed(&side->count[SIO_PIO]), mmio = sio_load_relaxed(&side->count[SIO_MMIO]);
    int sound = pio <= f->ranges && mmio <= f->ranges - pio;
    view->generation = ~0ull;
    for (uint32_t space = SIO_PIO; space <= SIO_MMIO; space++) {
        view->of[space].first = sio_map_places(side) + (space == SIO_PIO || !sound ? 0 : pio);
        view->of[space].n = !sound ? 0 : space == SIO_PIO ? pio : mmio;
        view->of[space].base = view->of[space].n ? sio_load_relaxed(&view->of[space].first->base) : 0;
        view->of[space].scale = sio_load_relaxed(&side->scale[space]);
    }
    sio_fence_compiler();
    view->generation = generation;
}

/* What a place has no room for. */
static inline void sio_map_widen(const struct sio_fabric *f, const struct sio_map_view *view, const struct sio_map_place *place,
                                 struct sio_map_entry *found)
{
    uint32_t which = view->generation & 1;
    const struct sio_map_entry *wide = sio_map_wide(f, which, (uint32_t)(place - sio_map_places(sio_map_side(f, which))));
    found->last = sio_load_relaxed(&wide->last);
    found->shards = sio_load_relaxed(&wide->shards);
}

/* Where the bytes [address, last] go, in the side of a view. */
static inline enum sio_route_result sio_map_look_up(const struct sio_fabric *f, const struct sio_map_view *view, uint32_t space,
                                                    uint64_t address, uint64_t last, struct sio_map_entry *found)
{
    const struct sio_map_place *place = view->of[space].first;
    uint32_t n = view->of[space].n;
    uint64_t distance = address - view->of[space].base;

    if (n == 0 || view->of[space].base > address)
        return SIO_UNCLAIMED;
    uint32_t guess = (uint32_t)(((unsigned __int128)distance * view->of[space].scale) >> 64);
    /* Right where the place is not wide and holds the address; `address` below its base is as far off as can be. */
    if (guess < n && address - sio_load_relaxed(&place[guess].base) <= (uint32_t)sio_load_relaxed(&place[guess].rest))
        place += guess;
    else
        place = sio_map_bisect(place, n, address);
    uint64_t rest = sio_load_relaxed(&place->rest);
    found->base = sio_load_relaxed(&place->base);
    found->last = found->base + (uint32_t)rest;
    found->shards = 1ull << (rest >> 48 & 63);
    found->range = (uint16_t)(rest >> 32);
    found->flags = (uint32_t)(rest >> 56) & ~SIO_PLACE_WIDE;
    if (__builtin_expect(rest >> 56 & SIO_PLACE_WIDE, 0))
        sio_map_widen(f, view, place, found);
    found->shards &= ~0ull >> (64 - f->shards);
    if (address < found->base || address > found->last || found->range >= f->ranges || found->shards == 0)
        return SIO_UNCLAIMED;
    return last > found->last || last < address ? SIO_CROSSING : SIO_ROUTED;
}

/* The same in the live map, of which `view` is a copy afterwards. A map that changes under the look-up is read again; one
 * that never holds still claims nothing. */
static inline enum sio_route_result sio_map_find(const struct sio_fabric *f, struct sio_map_view *view, uint32_t space,
                                                 uint64_t address, uint64_t last, struct sio_map_entry *found)
{
    for (uint32_t retry = 0; retry < SIO_ROUTE_RETRIES; retry++) {
        uint64_t generation = sio_load_acquire(&f->map->generation); /* SP-MAP */
        if (__builtin_expect(generation != view->generation, 0))
            sio_map_view(f, view, generation);
        enum sio_route_result result = sio_map_look_up(f, view, space, address, last, found);
        sio_fence_acquire();
        if (__builtin_expect(sio_load_acquire(&f->map->generation) == generation, 1))
            return result;
    }
    return SIO_UNCLAIMED;
}

/* The VMM's half (route.c). Entries: PIO first, each kind sorted by base, no overlaps; a new generation goes live. */
int sio_map_publish(const struct sio_fabric *fabric, const struct sio_map_entry *entries, uint32_t pio, uint32_t mmio);
uint64_t sio_map_generation(const struct sio_fabric *fabric);

/* For whoever asks now and then: non-zero and the entry that holds all of [address, last]. */
int sio_map_lookup(const struct sio_fabric *fabric, uint32_t space, uint64_t address, uint64_t last, struct sio_map_entry *found);

#endif
