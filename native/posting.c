/* The posted path where something is in its way: no room in the ring, another ring than the last time, an owner that sleeps. */
#include "posting.h"

/* Room for `position`, waited for if need be. A credit that the owner cannot have reached is no room. */
static int await_room(struct sio_client *c, uint32_t shard, uint64_t position)
{
    const struct sio_fabric *f = &c->fabric;
    const uint64_t *word = &sio_credit(f, shard, c->vcpu)->credit;
    uint64_t credit = sio_load_acquire(word); /* SP-CREDIT */
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_NONE, shard, position)); /* whoever watches sees what is waited for */
    for (;;) {
        if (position - credit < f->posted_slots) {
            c->shard[shard].credit = credit;
            return 1;
        }
        if (position - credit > f->posted_slots)
            sio_count(self(c)->malformed);
        if (sio_waiter_aborted(&c->waiter)) /* the wait below does not look where the credit keeps changing */
            return 0;
        sio_fence_full(); /* SP-WAKEUP: the slots are published, now look whether their reader sleeps */
        ring_if_asleep(c, &c->shard[shard], shard);
        uint64_t now = sio_wait_change(&c->waiter, self(c), word, credit, &c->unknown);
        if (now == credit)
            return 0;
        credit = now;
    }
}

/* Finds where the next writes to a shard go, and how many. `pending` does not name that ring yet. Zero: aborted, without room. */
static int open_ring(struct sio_client *c, uint32_t shard)
{
    const struct sio_fabric *f = &c->fabric;
    const struct sio_client_shard *mine = &c->shard[shard];
    uint64_t position = mine->posted, n = position & SIO_PENDING_N;
    uint64_t within = position & (f->posted_slots - 1);

    set_target(c, shard);
    c->resting = 0; /* whoever is killed in here leaves no ring open */
    sio_fence_compiler();
    if (position - mine->credit >= f->posted_slots && !await_room(c, shard, position))
        return 0;
    uint64_t room = mine->credit + f->posted_slots - position, left = f->posted_slots - within;
    c->open.limit = n + (room < left ? room : left);
    c->open.origin = (uint64_t)mine->ring - (n - within) * sizeof *mine->ring;
    c->open.lap = sio_posted_lap(f, position);
    c->open.need_wakeup = mine->need_wakeup;
    return 1;
}

enum sio_outcome sio_post(struct sio_client *c, struct sio_route *to, uint64_t address, uint32_t size, uint64_t data)
{
    if (!open_ring(c, to->shard))
        return SIO_ABORTED;
    uint64_t n = c->shard[to->shard].posted & SIO_PENDING_N;
    sio_fence_compiler();
    sio_store_release(&c->pending, SIO_PENDING(SIO_PENDING_POSTED, to->shard, n) | SIO_PENDING_OPEN);
    sio_fence_compiler();
    put(c, to, n, address - to->base, size, data);
    fence_between(c); /* SP-WAKEUP: published, now look whether the owner sleeps */
    ring_if_asleep(c, to->mine, to->shard);
    return SIO_ANSWERED; /* the owner counts it: a store less here */
}
