/* Publishes the address map: fills the side that no client reads, then bumps the generation. */
#include "route.h"

#include <errno.h>

int sio_map_publish(const struct sio_fabric *f, const struct sio_map_entry *entries, uint32_t pio, uint32_t mmio)
{
    if (pio > f->ranges || mmio > f->ranges - pio)
        return -ENOSPC;
    uint64_t generation = sio_load_relaxed(&f->map->generation) + 1;
    struct sio_map_side *side = sio_map_side(f, generation & 1);
    struct sio_map_entry *to = sio_map_entries(side);
    /* A client that still reads this side, two publications late, finds its generation changed when it is done. */
    sio_fence_release();
    for (uint32_t i = 0; i < pio + mmio; i++) {
        sio_store_relaxed(&to[i].base, entries[i].base);
        sio_store_relaxed(&to[i].last, entries[i].last);
        sio_store_relaxed(&to[i].shards, entries[i].shards);
        sio_store_relaxed(&to[i].range, entries[i].range);
        sio_store_relaxed(&to[i].flags, entries[i].flags);
    }
    sio_store_relaxed(&side->pio_count, pio);
    sio_store_relaxed(&side->mmio_count, mmio);
    sio_publish(&f->map->generation, generation); /* SP-MAP */
    return 0;
}

uint64_t sio_map_generation(const struct sio_fabric *f) { return sio_load_acquire(&f->map->generation); }
