/* The address map: which shard answers an address. Written by the VMM, looked up by every client.
 *
 * Two sides; the live one is generation & 1. The VMM fills the other, bumps the generation, fences every client
 * (membarrier) and waits until none is still inside an access that began before (SP-QUIESCE): only then does it tell a
 * shard to drop a device, or reuse the side. A client keeps the entries it hit last, and forgets them at a new generation.
 */
#ifndef SHARDIO_ROUTE_H
#define SHARDIO_ROUTE_H

#include "fabric.h"

#define SIO_ROUTE_SLOTS 64u
#define SIO_ROUTE_RETRIES 64u

enum sio_route_result { SIO_ROUTED, SIO_UNCLAIMED, SIO_CROSSING };

struct sio_route_cache {
    uint64_t generation;
    uint8_t valid[SIO_ROUTE_SLOTS];
    struct sio_map_entry entry[SIO_ROUTE_SLOTS];
};

static inline struct sio_map_side *sio_map_side(const struct sio_fabric *f, uint32_t which)
{
    uint64_t entries = ((uint64_t)f->ranges * sizeof(struct sio_map_entry) + SIO_LINE - 1) / SIO_LINE * SIO_LINE;
    return (struct sio_map_side *)((uint8_t *)f->map + sizeof *f->map + which * (sizeof(struct sio_map_side) + entries));
}

static inline struct sio_map_entry *sio_map_entries(struct sio_map_side *side) { return (struct sio_map_entry *)(side + 1); }

static inline uint32_t sio_route_hash(uint32_t space, uint64_t address)
{
    return space == SIO_PIO ? (uint32_t)(address & 31) : 32u + (uint32_t)((address ^ (address >> 6) ^ (address >> 12)) >> 3 & 31);
}

/* The last entry with base <= address, copied; 0 when there is none. Counts come from shared memory: bounded here. */
static inline int sio_map_search(const struct sio_fabric *f, uint64_t generation, uint32_t space, uint64_t address,
                                 struct sio_map_entry *found)
{
    struct sio_map_side *side = sio_map_side(f, generation & 1);
    const struct sio_map_entry *entries = sio_map_entries(side);
    uint32_t pio = sio_load_relaxed(&side->pio_count);
    uint32_t mmio = sio_load_relaxed(&side->mmio_count);
    if (pio > f->ranges || mmio > f->ranges - pio)
        return 0;
    const struct sio_map_entry *first = space == SIO_PIO ? entries : entries + pio;
    uint32_t n = space == SIO_PIO ? pio : mmio;
    if (n == 0 || sio_load_relaxed(&first->base) > address)
        return 0;
    while (n > 1) { /* invariant: first->base <= address; branch-free halving */
        uint32_t half = n / 2;
        first = sio_load_relaxed(&first[half].base) <= address ? first + half : first;
        n -= half;
    }
    found->base = sio_load_relaxed(&first->base);
    found->last = sio_load_relaxed(&first->last);
    found->shards = sio_load_relaxed(&first->shards);
    found->range = sio_load_relaxed(&first->range);
    found->flags = sio_load_relaxed(&first->flags);
    return 1;
}

static inline int sio_entry_spans(const struct sio_map_entry *e, uint64_t address, uint64_t last)
{
    return e->base <= address && last <= e->last;
}

/* Where an access of `length` bytes goes. A map that changes under the look-up is read again; one that is nonsense, or never
 * holds still, claims nothing. */
static inline enum sio_route_result sio_route(const struct sio_fabric *f, struct sio_route_cache *cache, uint32_t space,
                                              uint64_t address, uint64_t length, struct sio_map_entry *found)
{
    uint64_t last = address + length - 1;
    uint32_t slot = sio_route_hash(space, address);
    uint64_t generation = sio_load_acquire(&f->map->generation); /* SP-MAP */

    if (__builtin_expect(cache->generation != generation, 0)) {
        for (uint32_t i = 0; i < SIO_ROUTE_SLOTS; i++)
            cache->valid[i] = 0;
        cache->generation = generation;
    }
    if (__builtin_expect(cache->valid[slot], 1) && sio_entry_spans(&cache->entry[slot], address, last) && last >= address) {
        *found = cache->entry[slot];
        return SIO_ROUTED;
    }
    for (uint32_t retry = 0; retry < SIO_ROUTE_RETRIES; retry++) {
        int hit = sio_map_search(f, generation, space, address, found);
        sio_fence_acquire();
        uint64_t again = sio_load_acquire(&f->map->generation); /* SP-MAP */
        if (again != generation) {
            generation = again;
            continue;
        }
        if (!hit || address > found->last)
            return SIO_UNCLAIMED;
        if (last > found->last || last < address)
            return SIO_CROSSING;
        if (found->range >= f->ranges || (found->shards & (~0ull >> (64 - f->shards))) == 0)
            return SIO_UNCLAIMED;
        if (generation == cache->generation) {
            cache->entry[slot] = *found;
            cache->valid[slot] = 1;
        }
        return SIO_ROUTED;
    }
    return SIO_UNCLAIMED;
}

/* The VMM's half (route.c). Entries: PIO first, each kind sorted by base, no overlaps; a new generation goes live. */
int sio_map_publish(const struct sio_fabric *fabric, const struct sio_map_entry *entries, uint32_t pio, uint32_t mmio);
uint64_t sio_map_generation(const struct sio_fabric *fabric);

#endif
