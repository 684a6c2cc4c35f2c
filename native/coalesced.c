/* Drains KVM's coalesced ring into the owner's handlers. */
#include "coalesced.h"
#include "owner_parts.h"

#include <linux/kvm.h>

_Static_assert(offsetof(struct kvm_coalesced_mmio_ring, first) == 0 && offsetof(struct kvm_coalesced_mmio_ring, last) == 4,
               "a client knows the ring by its first two words");

int sio_coalesced_init(struct sio_coalesced *c, void *page, uint64_t size)
{
    __builtin_memset(c, 0, sizeof *c);
    if (!page || size < sizeof(struct kvm_coalesced_mmio_ring) + 2 * sizeof(struct kvm_coalesced_mmio))
        return -EINVAL;
    c->ring = page;
    c->slots = (uint32_t)((size - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio));
    c->first = sio_load_relaxed(&c->ring->first); /* a predecessor's position */
    if (c->first >= c->slots)
        c->first = 0;
    return 0;
}

int sio_coalesced_add(struct sio_coalesced *c, uint32_t range)
{
    if (c->ranges == SIO_MAX_COALESCED)
        return -ENOSPC;
    c->range[c->ranges++] = (uint16_t)range;
    return 0;
}

int sio_coalesced_drop(struct sio_coalesced *c, uint32_t range)
{
    for (uint32_t i = 0; i < c->ranges; i++)
        if (c->range[i] == range) {
            c->range[i] = c->range[--c->ranges];
            return 0;
        }
    return -ENOENT;
}

/* The range that a write belongs to. Of a device that is gone: none, the write is dropped, as it would be now. */
static const struct sio_handler *handler_of(const struct sio_owner *o, const struct kvm_coalesced_mmio *write, uint32_t *range)
{
    const struct sio_coalesced *c = o->coalesced;
    uint32_t space = write->pio ? SIO_PIO : SIO_MMIO;
    for (uint32_t i = 0; i < c->ranges; i++) {
        const struct sio_handler *h = &o->handlers[*range = c->range[i]];
        if (h->kind != SIO_NO_HANDLER && h->space == space && h->base <= write->phys_addr && write->phys_addr <= h->last)
            return h;
    }
    return NULL;
}

static void apply(struct sio_owner *o, const struct kvm_coalesced_mmio *write)
{
    uint32_t range;
    const struct sio_handler *h = handler_of(o, write, &range);
    if (!h || write->phys_addr - h->base > UINT32_MAX)
        return;
    struct sio_posted_write m = {.offset = (uint32_t)(write->phys_addr - h->base), .range = (uint16_t)range};
    if (write->len == 1 || write->len == 2 || write->len == 4 || write->len == 8) {
        __builtin_memcpy(&m.data, write->data, 8);
        m.size = (uint8_t)write->len;
        sio_owner_apply(o, &m);
        return;
    }
    for (uint32_t i = 0; i < write->len && i < 8; i++) { /* one that a page's end cut: byte by byte, as an exit is */
        m.data = write->data[i];
        m.size = 1;
        sio_owner_apply(o, &m);
        m.offset++;
    }
}

static void apply_next(struct sio_owner *o, struct sio_coalesced *c)
{
    struct kvm_coalesced_mmio write = c->ring->coalesced_mmio[c->first];
    c->first = c->first + 1 < c->slots ? c->first + 1 : 0;
    sio_store_release(&c->ring->first, c->first); /* SP-COALESCED: copied; and the journal, before the effect */
    sio_fence_release();
    apply(o, &write);
}

/* To where the ring ends now, or a ring's length if the guest fills it meanwhile. A vCPU posts only while this ring is empty
 * (posts_now in posting.h), so what it has posted by now is older than what it has here: the posted rings come first. */
static uint32_t drain(struct sio_owner *o)
{
    struct sio_coalesced *c = o->coalesced;
    uint32_t n = 0, posted = 0, last;

    while ((last = sio_load_acquire(&c->ring->last)) != c->first && last < c->slots && n < c->slots) { /* SP-COALESCED */
        posted += sio_drain_all(o);
        for (; c->first != last && n < c->slots; n++)
            apply_next(o, c);
    }
    return n + posted;
}

void sio_owner_coalesced(struct sio_owner *o, struct sio_coalesced *c)
{
    o->coalesced = c;
    o->drain_coalesced = c ? drain : NULL;
    sio_store_release(&o->control->coalesced, c != NULL); /* seen by the routes of the next map: SP-MAP */
}
