/* Settles what a dead owner left in its lines. */
#include "recovery.h"

#include "wait.h"

int sio_recover_request(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu, struct sio_request *request, int *taken)
{
    struct sio_message message;
    if (shard >= f->shards || vcpu >= f->vcpus || !sio_mailbox_poll(sio_mailbox(f, shard, vcpu), &message))
        return 0;
    *request = sio_request_of(message);
    *taken = sio_load_acquire(&f->shard[shard].taken) == SIO_JOURNAL(vcpu, request->state >> 2);
    return 1;
}

void sio_recover_refuse(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu, uint64_t state)
{
    sio_mailbox_reply(sio_mailbox(f, shard, vcpu), state, SIO_REFUSED, ~0ull, 0);
    sio_wake_client(&f->vcpu[vcpu]);
}

void sio_recover_settled(const struct sio_fabric *f, uint32_t shard)
{
    struct sio_shard_control *c = &f->shard[shard];
    if (sio_load_relaxed(&c->taken) != ~0ull) /* else: it died before it took anything, and what its predecessor had in hand still waits */
        sio_store_relaxed(&c->interrupted, sio_load_relaxed(&c->taken));
    sio_store_release(&c->taken, ~0ull); /* no vCPU has this number */
}

uint64_t sio_recover_epoch(const struct sio_fabric *f, uint32_t shard)
{
    uint64_t epoch = sio_load_relaxed(&f->shard[shard].owner_epoch) + 1;
    sio_store_release(&f->shard[shard].owner_epoch, epoch);
    sio_store_release(&f->shard[shard].levels, 0); /* SP-WIRES */
    return epoch;
}

void sio_recover_taken(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu, uint64_t posted)
{
    struct sio_credit *credit = sio_credit(f, shard, vcpu);
    if (posted - sio_load_relaxed(&credit->taken) > f->posted_slots)
        sio_store_relaxed(&credit->taken, posted);
}

void sio_recover_discard_posted(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu, uint64_t upto)
{
    sio_store_relaxed(&sio_credit(f, shard, vcpu)->taken, upto);
    sio_publish(&sio_credit(f, shard, vcpu)->credit, upto);
    sio_wake_client(&f->vcpu[vcpu]);
}
