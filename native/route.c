/* Publishes the address map: fills the side that no client reads, then bumps the generation. */
#include "route.h"

#include <errno.h>

/* Entries per address * 2^64, so that (address - first base) * scale / 2^64 is where the address should be. */
static uint64_t scale_of(const struct sio_map_entry *entries, uint32_t n)
{
    if (n < 2)
        return 0;
    unsigned __int128 span = (unsigned __int128)entries[n - 1].last - entries[0].base + 1;
    unsigned __int128 scale = ((unsigned __int128)n << 64) / span;
    return scale > ~0ull ? ~0ull : (uint64_t)scale;
}

/* What the place of an entry holds beside its base; where it has no room for that, the wide entry is written too. */
static uint64_t rest_of(const struct sio_fabric *f, uint32_t which, uint32_t place, const struct sio_map_entry *entry)
{
    uint64_t less_1 = entry->last - entry->base, shards = entry->range < f->ranges ? entry->shards : 0;
    uint32_t range = (uint16_t)entry->range, flags = entry->flags & (SIO_RANGE_POSTED | SIO_RANGE_QUARANTINED);
    if (less_1 <= UINT32_MAX && shards && (shards & (shards - 1)) == 0)
        return sio_place_rest(less_1, range, (uint32_t)__builtin_ctzll(shards), flags);
    struct sio_map_entry *wide = sio_map_wide(f, which, place);
    sio_store_relaxed(&wide->last, entry->last);
    sio_store_relaxed(&wide->shards, shards);
    return sio_place_rest(0, range, 0, flags | SIO_PLACE_WIDE);
}

int sio_map_publish(const struct sio_fabric *f, const struct sio_map_entry *entries, uint32_t pio, uint32_t mmio)
{
    if (pio > f->ranges || mmio > f->ranges - pio)
        return -ENOSPC;
    uint64_t generation = sio_load_relaxed(&f->map->generation) + 1;
    struct sio_map_side *side = sio_map_side(f, generation & 1);
    struct sio_map_place *to = sio_map_places(side);
    /* A client that still reads this side, two publications late, finds its generation changed when it is done. */
    sio_fence_release();
    for (uint32_t i = 0; i < pio + mmio; i++) {
        sio_store_relaxed(&to[i].base, entries[i].base);
        sio_store_relaxed(&to[i].rest, rest_of(f, generation & 1, i, &entries[i]));
    }
    sio_store_relaxed(&side->count[SIO_PIO], pio);
    sio_store_relaxed(&side->count[SIO_MMIO], mmio);
    sio_store_relaxed(&side->scale[SIO_PIO], scale_of(entries, pio));
    sio_store_relaxed(&side->scale[SIO_MMIO], scale_of(entries + pio, mmio));
    sio_publish(&f->map->generation, generation); /* SP-MAP */
    return 0;
}

uint64_t sio_map_generation(const struct sio_fabric *f) { return sio_load_acquire(&f->map->generation); }

int sio_map_lookup(const struct sio_fabric *f, uint32_t space, uint64_t address, uint64_t last, struct sio_map_entry *found)
{
    struct sio_map_view view = {.generation = ~0ull};
    return sio_map_find(f, &view, space, address, last, found) == SIO_ROUTED;
}
