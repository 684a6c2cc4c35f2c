/* The vCPU's side of an access, in the order of its path: route, publish, ring the doorbell, wait, take the reply. */
#include "client.h"

static uint64_t width_mask(uint32_t size) { return size >= 8 ? ~0ull : (1ull << (size * 8)) - 1; }

static void copy_bytes(uint8_t *to, const uint8_t *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = from[i];
}

static void fill_ones(uint8_t *to, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = 0xff;
}

void sio_client_init(struct sio_client *c, const struct sio_fabric *f, uint32_t vcpu)
{
    __builtin_memset(c, 0, sizeof *c);
    c->fabric = *f;
    c->vcpu = vcpu;
    c->cache.generation = ~0ull;
    for (uint32_t s = 0; s < SIO_MAX_SHARDS; s++) {
        c->doorbell[s] = -1;
        c->near[s] = (uint8_t)((vcpu + s) % f->shards);
        c->rung[s] = 0;
    }
    /* Segment memory may have served a client before: go on from what it holds. */
    for (uint32_t s = 0; s < f->shards; s++) {
        c->seq[s] = sio_load_relaxed(&sio_mailbox(f, s, vcpu)->state) >> 2;
        c->posted[s] = c->credit[s] = sio_load_relaxed(&sio_credit(f, s, vcpu)->taken);
    }
    sio_waiter_init(&c->waiter, f);
}

/* An odd doze means that the owner sleeps; one ring per doze is enough, the eventfd keeps it. */
static inline void ring_if_dozing(struct sio_client *c, uint32_t shard)
{
    uint64_t doze = sio_load_relaxed(&c->fabric.shard[shard].doze);
    if (__builtin_expect((doze & 1) == 0 || c->rung[shard] == doze, 1))
        return;
    if (c->doorbell[shard] >= 0) {
        sio_eventfd_ring(c->doorbell[shard]);
        sio_count(c->fabric.vcpu[c->vcpu].doorbells);
    }
    c->rung[shard] = doze;
}

static inline uint32_t nearest(const struct sio_client *c, uint64_t shards)
{
    if (__builtin_expect((shards & (shards - 1)) == 0, 1))
        return (uint32_t)__builtin_ctzll(shards);
    for (uint32_t i = 0; i < c->fabric.shards; i++)
        if (shards >> c->near[i] & 1)
            return c->near[i];
    return (uint32_t)__builtin_ctzll(shards);
}

static inline struct sio_vcpu_control *self(struct sio_client *c) { return &c->fabric.vcpu[c->vcpu]; }

static enum sio_outcome unclaimed(struct sio_client *c, enum sio_route_result why, int write)
{
    struct sio_vcpu_control *me = self(c);
    if (why == SIO_CROSSING)
        sio_count(me->crossing);
    else if (write)
        sio_count(me->unclaimed_writes);
    else
        sio_count(me->unclaimed_reads);
    return SIO_NOT_ANSWERED;
}

/* Room for `position`, waited for if need be. A `taken` that the owner cannot have reached is no room. */
static int posted_room(struct sio_client *c, uint32_t shard, uint64_t position)
{
    const struct sio_fabric *f = &c->fabric;
    if (__builtin_expect(position - c->credit[shard] < f->posted_slots, 1))
        return 1;
    const uint64_t *word = &sio_credit(f, shard, c->vcpu)->taken;
    uint64_t taken = sio_load_acquire(word); /* SP-CREDIT */
    for (;;) {
        if (position - taken < f->posted_slots) {
            c->credit[shard] = taken;
            return 1;
        }
        if (position - taken > f->posted_slots)
            sio_count(self(c)->hostile);
        sio_fence_full(); /* SP-DOZE: the slots are published, now look whether their reader sleeps */
        ring_if_dozing(c, shard);
        uint64_t now = sio_wait_change(&c->waiter, self(c), word, taken);
        if (now == taken)
            return 0;
        taken = now;
    }
}

static enum sio_outcome post(struct sio_client *c, const struct sio_map_entry *entry, uint32_t space, uint64_t address,
                             uint32_t size, uint64_t data)
{
    const struct sio_fabric *f = &c->fabric;
    uint32_t shard = nearest(c, entry->shards);
    uint64_t position = c->posted[shard];
    struct sio_posted message = {.range = entry->range, .address = address, .data = data, .size = (uint8_t)size,
                                 .space = (uint8_t)space};

    c->target = shard;
    if (!posted_room(c, shard, position))
        return SIO_ABORTED;
    c->pending = SIO_PENDING(SIO_PENDING_POSTED, shard, position);
    sio_fence_compiler();
    sio_posted_push(f, sio_ring(f, shard, c->vcpu), position, &message);
    c->posted[shard] = position + 1;
    /* SP-DOZE: the owner's membarrier, between its announcement and its last look, is this side's fence. */
    if (c->membarrier)
        sio_fence_compiler();
    else
        sio_fence_full();
    ring_if_dozing(c, shard);
    sio_count(sio_stat(f, c->vcpu, entry->range)->posted);
    return SIO_ANSWERED;
}

/* Waits for the reply to request `seq` and checks it. */
static enum sio_outcome await_reply(struct sio_client *c, uint32_t shard, uint64_t seq, uint64_t *data)
{
    struct sio_mailbox *box = sio_mailbox(&c->fabric, shard, c->vcpu);
    uint64_t request = SIO_STATE(seq, SIO_REQUEST);
    uint64_t state = sio_wait_change(&c->waiter, self(c), &box->state, request); /* SP-REPLY */

    if (__builtin_expect(state == SIO_STATE(seq, SIO_DONE), 1)) {
        *data = sio_load_relaxed(&box->data);
        return SIO_ANSWERED;
    }
    if (state == request)
        return SIO_ABORTED;
    if (state != SIO_STATE(seq, SIO_REFUSED))
        sio_count(self(c)->hostile);
    return SIO_NOT_ANSWERED;
}

struct sio_transaction {
    uint32_t space;
    uint32_t size;
    uint32_t count; /* 0: not a string */
    int write;
    uint64_t address;
    uint64_t data;
    uint8_t *string;
};

static inline __attribute__((always_inline)) enum sio_outcome request(struct sio_client *c, const struct sio_map_entry *entry,
                                                                      struct sio_transaction *t)
{
    const struct sio_fabric *f = &c->fabric;
    uint32_t shard = nearest(c, entry->shards);
    uint64_t seq = (c->seq[shard] + 1) & SIO_PENDING_N;
    int sample = (c->accesses & c->sample_mask) == 0 || c->accesses < 64;
    struct sio_stat *stat = sio_stat(f, c->vcpu, entry->range);
    struct sio_request r = {
        .state = SIO_STATE(seq, SIO_REQUEST),
        .address = t->address,
        .data = t->data,
        .posted_upto = c->posted[shard],
        .range = entry->range,
        .count = t->count,
        .op = (uint8_t)((t->write ? SIO_WRITE : 0) | (t->count ? SIO_STRING : 0) | (sample ? SIO_SAMPLE : 0)),
        .size = (uint8_t)t->size,
        .space = (uint8_t)t->space,
    };
    if (t->count && t->write)
        copy_bytes(sio_side(f, c->vcpu), t->string, t->size * t->count);

    uint64_t begin = sample ? sio_ticks() : 0;
    c->target = shard;
    c->pending = SIO_PENDING(SIO_PENDING_SYNC, shard, seq);
    c->seq[shard] = seq;
    sio_fence_compiler();
    sio_mailbox_request(sio_mailbox(f, shard, c->vcpu), &r); /* the exchange is SP-DOZE's fence */
    ring_if_dozing(c, shard);
    /* While the line is away: the bookkeeping. */
    c->accesses++;
    if (t->write)
        sio_count(stat->writes);
    else
        sio_count(stat->reads);
    if (__builtin_expect(t->count != 0, 0))
        sio_count(stat->strings);

    enum sio_outcome outcome = await_reply(c, shard, seq, &t->data);
    if (sample)
        sio_stat_sample(f, stat, sio_ticks() - begin);
    if (__builtin_expect(outcome == SIO_NOT_ANSWERED, 0))
        sio_count(stat->refused);
    return outcome;
}

/* A message for this very access may be out already: its sender died before the access was complete. Non-zero: `outcome`
 * is the answer. Zero: nothing was published, send it now. */
static int take_up(struct sio_client *c, struct sio_transaction *t, enum sio_outcome *outcome)
{
    const struct sio_fabric *f = &c->fabric;
    uint32_t kind = (uint32_t)(c->pending >> 62), shard = (uint32_t)(c->pending >> 56) & 63;
    uint64_t n = c->pending & SIO_PENDING_N;

    if (kind == SIO_PENDING_POSTED) {
        struct sio_posted *slot = sio_posted_slot(f, sio_ring(f, shard, c->vcpu), n);
        if ((c->posted[shard] & SIO_PENDING_N) != n + 1 && sio_load_relaxed(&slot->lap) != sio_posted_lap(f, n))
            return 0;
        if ((c->posted[shard] & SIO_PENDING_N) == n)
            c->posted[shard]++;
        sio_fence_full();
        c->rung[shard] = 0;
        ring_if_dozing(c, shard);
        *outcome = SIO_ANSWERED;
        return 1;
    }
    uint64_t state = sio_load_acquire(&sio_mailbox(f, shard, c->vcpu)->state);
    if (state >> 2 != n || (state & 3) == SIO_IDLE)
        return 0;
    c->seq[shard] = n;
    sio_fence_full();
    c->rung[shard] = 0;
    ring_if_dozing(c, shard);
    *outcome = await_reply(c, shard, n, &t->data);
    return 1;
}

static inline __attribute__((always_inline)) enum sio_outcome transact(struct sio_client *c, struct sio_transaction *t)
{
    struct sio_map_entry entry;
    enum sio_outcome outcome;
    uint32_t bytes = t->count ? t->size * t->count : t->size;

    if (__builtin_expect(c->pending != 0, 0) && take_up(c, t, &outcome))
        goto answered;
    sio_store_relaxed(&c->busy, c->busy | 1); /* SP-QUIESCE, with the VMM's membarrier */
    sio_fence_compiler();
    enum sio_route_result routed = sio_route(&c->fabric, &c->cache, t->space, t->address, t->size, &entry);
    if (__builtin_expect(routed != SIO_ROUTED, 0))
        outcome = unclaimed(c, routed, t->write);
    else if (__builtin_expect(entry.flags & SIO_RANGE_QUARANTINED, 0)) {
        sio_count(sio_stat(&c->fabric, c->vcpu, entry.range)->refused);
        outcome = SIO_NOT_ANSWERED;
    } else if ((entry.flags & SIO_RANGE_POSTED) && t->write && !t->count)
        outcome = post(c, &entry, t->space, t->address, t->size, t->data);
    else
        outcome = request(c, &entry, t);
answered:
    if (outcome != SIO_ABORTED)
        sio_store_release(&c->busy, (c->busy | 1) + 1); /* SP-QUIESCE */
    if (t->count && !t->write) {
        if (outcome == SIO_ANSWERED)
            copy_bytes(t->string, sio_side(&c->fabric, c->vcpu), bytes);
        else if (outcome == SIO_NOT_ANSWERED)
            fill_ones(t->string, bytes);
    }
    return outcome;
}

enum sio_outcome sio_client_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data)
{
    struct sio_transaction t = {.space = space, .size = size, .write = write, .address = address, .data = write ? *data : 0};
    enum sio_outcome outcome = transact(c, &t);
    if (!write)
        *data = outcome == SIO_ANSWERED ? t.data & width_mask(size) : width_mask(size);
    return outcome;
}

enum sio_outcome sio_client_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string)
{
    struct sio_transaction t = {.space = space, .size = size, .count = count, .write = write, .address = address,
                                .string = string};
    return transact(c, &t);
}

void sio_client_complete(struct sio_client *c) { sio_store_relaxed(&c->pending, 0); }

static int sound(uint32_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

int sio_client_read(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t *data)
{
    if (!sound(size) || space > SIO_MMIO)
        return -EINVAL;
    enum sio_outcome outcome = sio_client_access(c, space, address, size, 0, data);
    sio_client_complete(c);
    return (int)outcome;
}

int sio_client_write(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    if (!sound(size) || space > SIO_MMIO)
        return -EINVAL;
    enum sio_outcome outcome = sio_client_access(c, space, address, size, 1, &data);
    sio_client_complete(c);
    return (int)outcome;
}
