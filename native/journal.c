/* What a client's journal tells those who watch, and what becomes of it when its process has died. */
#include "journal.h"

#include "port.h"

uint64_t sio_client_pending(const struct sio_client *c)
{
    uint64_t pending = sio_load_acquire(&c->pending); /* SP-QUIESCE */
    return pending >> 62 ? pending : 0;
}

uint64_t sio_client_posted(const struct sio_client *c, uint32_t shard)
{
    uint64_t before = sio_load_acquire(&c->shard[shard].posted), pending = sio_load_acquire(&c->pending);
    if (!(pending & SIO_PENDING_OPEN) || (pending >> 56 & 63) != shard)
        return sio_load_relaxed(&c->shard[shard].posted); /* not `before`: noted since, maybe */
    return position_named(pending, before) + (pending >> 62 == SIO_PENDING_POSTED);
}

int sio_client_finish(struct sio_client *c, const struct sio_fabric *f)
{
    uint64_t pending = sio_load_acquire(&c->pending);
    uint32_t kind = (uint32_t)(pending >> 62), shard = (uint32_t)(pending >> 56) & 63;

    if (kind == SIO_PENDING_SYNC && shard < f->shards) {
        uint64_t n = pending & SIO_PENDING_N, state = sio_load_acquire(&sio_mailbox(f, shard, c->vcpu)->state); /* SP-REPLY */
        if (state == SIO_STATE(n, SIO_REQUEST))
            return 0;
        c->shard[shard].seq = n;
    }
    if (kind == SIO_PENDING_POSTED && shard < f->shards) {
        uint64_t position = position_named(pending, c->shard[shard].posted);
        const struct sio_posted *slot = sio_posted_slot(f, sio_ring(f, shard, c->vcpu), position);
        if (sio_load_relaxed(&slot->lap) != sio_posted_lap(f, position))
            position--; /* never published: sio_client_after counts it, so begin one lower */
        sio_store_release(&c->shard[shard].posted, position + 1);
        pending = 0;
    }
    if (kind == SIO_PENDING_SYNC || kind == SIO_PENDING_NONE)
        pending = c->resting;
    if (pending && (pending >> 56 & 63) < f->shards)
        note_posted(c, pending);
    c->resting = 0;
    sio_store_release(&c->pending, 0); /* SP-QUIESCE */
    return 1;
}
