/* The vCPU's side of an access, in the order of its path: route, publish, ring the doorbell, wait, take the reply. */
#include "client.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NEVER_INLINE __attribute__((noinline, cold))

static inline uint64_t width_mask(uint32_t size) { return ~0ull >> ((64 - size * 8) & 63); }

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

static inline struct sio_vcpu_control *self(struct sio_client *c) { return &c->fabric.vcpu[c->vcpu]; }

/* ---- routes -------------------------------------------------------------------------------------------------------- */

static void forget_routes(struct sio_client *c)
{
    for (uint32_t i = 0; i < SIO_ROUTE_SLOTS; i++) {
        c->route[i].base = 1;
        c->route[i].last = 0;
    }
}

void sio_client_init(struct sio_client *c, const struct sio_fabric *f, uint32_t vcpu)
{
    __builtin_memset(c, 0, sizeof *c);
    c->fabric = *f;
    c->vcpu = vcpu;
    c->map.generation = ~0ull;
    forget_routes(c);
    for (uint32_t s = 0; s < SIO_MAX_SHARDS; s++) {
        c->doorbell[s] = -1;
        c->near[s] = (uint8_t)((vcpu + s) % f->shards);
    }
    /* Segment memory may have served a client before: go on from what it holds. */
    for (uint32_t s = 0; s < f->shards; s++) {
        c->shard[s].box = sio_mailbox(f, s, vcpu);
        c->shard[s].ring = sio_ring(f, s, vcpu);
        c->shard[s].doze = &f->shard[s].doze;
        c->shard[s].seq = sio_load_relaxed(&sio_mailbox(f, s, vcpu)->state) >> 2;
        c->shard[s].posted = c->shard[s].credit = sio_load_relaxed(&sio_credit(f, s, vcpu)->taken);
    }
    sio_waiter_init(&c->waiter, f);
}

static uint32_t nearest(const struct sio_client *c, uint64_t shards)
{
    for (uint32_t i = 0; i < c->fabric.shards; i++)
        if (shards >> c->near[i] & 1)
            return c->near[i];
    return (uint32_t)__builtin_ctzll(shards);
}

static inline uint32_t slot_of(uint32_t space, uint64_t address)
{
    uint32_t half = SIO_ROUTE_SLOTS / 2;
    return space == SIO_PIO ? (uint32_t)(address >> 1) & (half - 1)
                            : half + ((uint32_t)(address >> 3 ^ address >> 8 ^ address >> 12) & (half - 1));
}

/* Not among the routes kept: looks the map up and keeps what it finds. */
static __attribute__((noinline)) enum sio_route_result find_route(struct sio_client *c, uint32_t space, uint64_t address,
                                                                  uint64_t last, struct sio_route *slot)
{
    const struct sio_fabric *f = &c->fabric;
    struct sio_map_entry entry = {0};
    uint64_t before = c->map.generation;
    enum sio_route_result result = sio_map_find(f, &c->map, space, address, last, &entry);

    if (unlikely(c->map.generation != before))
        forget_routes(c);
    if (likely(result == SIO_ROUTED)) {
        uint32_t shard = entry.shards & (entry.shards - 1) ? nearest(c, entry.shards) : (uint32_t)__builtin_ctzll(entry.shards);
        /* Field by field: a struct put together elsewhere and copied would be read back before its parts have arrived. */
        slot->base = entry.base;
        slot->last = entry.last;
        slot->box = c->shard[shard].box;
        slot->ring = c->shard[shard].ring;
        slot->stat = sio_stat(f, c->vcpu, entry.range);
        slot->range = entry.range;
        slot->flags = entry.flags;
        slot->shard = shard;
        slot->command = sio_command(entry.range, 0, 0, 0, space);
        slot->posts = (entry.flags & (SIO_RANGE_POSTED | SIO_RANGE_QUARANTINED)) == SIO_RANGE_POSTED &&
                      entry.last - entry.base < SIO_POSTED_OFFSET && c->waiter.membarrier;
    }
    return result;
}

static inline int hits(const struct sio_client *c, const struct sio_route *slot, uint64_t address, uint64_t last)
{
    return sio_load_acquire(&c->fabric.map->generation) == c->map.generation /* SP-MAP */ && slot->base <= address &&
           last <= slot->last && address <= last;
}

static inline enum sio_route_result find(struct sio_client *c, uint32_t space, uint64_t address, uint64_t last,
                                         struct sio_route **route)
{
    struct sio_route *slot = *route = &c->route[slot_of(space, address)];
    if (likely(hits(c, slot, address, last)))
        return SIO_ROUTED;
    return find_route(c, space, address, last, slot);
}

static NEVER_INLINE enum sio_outcome unclaimed(struct sio_client *c, enum sio_route_result why, uint32_t space,
                                               uint64_t address, int write)
{
    struct sio_vcpu_control *me = self(c);
    sio_store_relaxed(&me->unclaimed_space, space);
    sio_store_relaxed(&me->unclaimed_address, address);
    if (why == SIO_CROSSING)
        sio_count(me->crossing);
    else if (write)
        sio_count(me->unclaimed_writes);
    else
        sio_count(me->unclaimed_reads);
    return SIO_NOT_ANSWERED;
}

/* ---- doorbells ----------------------------------------------------------------------------------------------------- */

/* Always SIO_ANSWERED: what was published is, whether or not the owner has to be told. */
static NEVER_INLINE enum sio_outcome ring(struct sio_client *c, uint32_t shard, uint64_t doze)
{
    if (c->shard[shard].rung == doze) /* one ring per doze is enough: the eventfd keeps it */
        return SIO_ANSWERED;
    if (c->doorbell[shard] >= 0) {
        sio_eventfd_ring(c->doorbell[shard]);
        sio_count(self(c)->doorbells);
    }
    c->shard[shard].rung = doze;
    return SIO_ANSWERED;
}

/* An odd doze means that the owner sleeps. */
static inline void ring_if_dozing(struct sio_client *c, uint32_t shard)
{
    uint64_t doze = sio_load_relaxed(c->shard[shard].doze);
    if (unlikely(doze & 1))
        ring(c, shard, doze);
}

/* ---- posted -------------------------------------------------------------------------------------------------------- */

/* Room for `position`, waited for if need be. A credit that the owner cannot have reached is no room. */
static __attribute__((noinline)) int await_room(struct sio_client *c, uint32_t shard, uint64_t position)
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
            sio_count(self(c)->hostile);
        sio_fence_full(); /* SP-DOZE: the slots are published, now look whether their reader sleeps */
        ring_if_dozing(c, shard);
        uint64_t now = sio_wait_change(&c->waiter, self(c), word, credit, &c->unknown);
        if (now == credit)
            return 0;
        credit = now;
    }
}

/* For whoever watches how long this client waits, and for whom. */
static inline void aim(struct sio_client *c, uint32_t shard)
{
    if (unlikely(c->target != shard))
        sio_store_relaxed(&c->target, shard);
}

/* Into the ring, where there is room. */
static inline void put(struct sio_client *c, const struct sio_route *to, struct sio_client_shard *mine, uint64_t address,
                       uint32_t size, uint64_t data)
{
    uint64_t position = mine->posted;
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_POSTED, to->shard, position));
    sio_fence_compiler();
    sio_posted_push(&c->fabric, to->ring, position, to->range, (uint32_t)(address - to->base), size, data);
    mine->posted = position + 1;
}

static inline enum sio_outcome post(struct sio_client *c, struct sio_route *to, uint64_t address, uint32_t size,
                                    uint64_t data)
{
    const struct sio_fabric *f = &c->fabric;
    uint32_t shard = to->shard;
    struct sio_client_shard *mine = &c->shard[shard];
    uint64_t position = mine->posted;

    aim(c, shard);
    if (unlikely(position - mine->credit >= f->posted_slots) && !await_room(c, shard, position))
        return SIO_ABORTED;
    put(c, to, mine, address, size, data);
    /* SP-DOZE: the owner's membarrier, between its announcement and its last look, is this side's fence. */
    if (likely(c->waiter.membarrier))
        sio_fence_compiler();
    else
        sio_fence_full();
    ring_if_dozing(c, shard);
    return SIO_ANSWERED; /* the owner counts it: a store less here */
}

/* ---- synchronous --------------------------------------------------------------------------------------------------- */

/* The reply's state is not what it should be: refused, aborted, or nonsense. */
static NEVER_INLINE enum sio_outcome no_answer(struct sio_client *c, uint64_t seq, uint64_t state)
{
    if (state == SIO_STATE(seq, SIO_REQUEST))
        return SIO_ABORTED;
    if (state != SIO_STATE(seq, SIO_REFUSED))
        sio_count(self(c)->hostile);
    return SIO_NOT_ANSWERED;
}

static NEVER_INLINE void note_lines(struct sio_client *c, uint32_t shard, uint32_t lines)
{
    c->lines |= lines & sio_load_relaxed(&c->granted[shard]);
}

static inline __attribute__((always_inline)) enum sio_outcome await_reply(struct sio_client *c, struct sio_mailbox *box,
                                                                          uint32_t shard, uint64_t seq,
                                                                          struct sio_patience *patience, uint64_t *data)
{
    uint64_t state = sio_wait_change(&c->waiter, self(c), &box->state, SIO_STATE(seq, SIO_REQUEST), patience); /* SP-REPLY */
    uint64_t lines = sio_load_relaxed(&box->lines);
    if (unlikely(lines) && state != SIO_STATE(seq, SIO_REQUEST))
        note_lines(c, shard, (uint32_t)lines);
    if (unlikely(state != SIO_STATE(seq, SIO_DONE)))
        return no_answer(c, seq, state);
    *data = sio_load_relaxed(&box->data);
    return SIO_ANSWERED;
}

/* The wait alone, of an access whose service nobody times: what is timed must go as fast as what is not. */
static __attribute__((noinline)) enum sio_outcome await_reply_timed(struct sio_client *c, struct sio_route *to, uint64_t seq,
                                                                    uint64_t *data)
{
    struct sio_patience *patience = &to->patience;
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = await_reply(c, to->box, to->shard, seq, patience, data);
    sio_patience_learn(patience, sio_ticks() - begin);
    return outcome;
}

static NEVER_INLINE void take_sample(struct sio_client *c, struct sio_stat *stat, uint64_t ticks)
{
    sio_stat_sample(&c->fabric, stat, ticks);
    c->sampling = c->accesses < SIO_SAMPLE_FIRST ? 0 : c->sample_mask;
}

static inline __attribute__((always_inline)) enum sio_outcome request(struct sio_client *c, struct sio_route *to, uint32_t op,
                                                                      uint64_t address, uint32_t size, uint32_t count,
                                                                      uint64_t *data)
{
    uint32_t shard = to->shard;
    struct sio_client_shard *mine = &c->shard[shard];
    uint64_t seq = (mine->seq + 1) & SIO_PENDING_N;
    uint64_t number = c->accesses++;
    int sample = (number & c->sampling) == 0;
    uint64_t begin = sample ? sio_ticks() : 0;

    aim(c, shard);
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_SYNC, shard, seq));
    mine->seq = seq;
    sio_fence_compiler();
    sio_mailbox_request(to->box, SIO_STATE(seq, SIO_REQUEST), address, *data, mine->posted,
                        to->command | sio_command(0, count, op | (sample ? SIO_SAMPLE : 0), size, 0));
    /* SP-DOZE: the publication was a full fence */
    ring_if_dozing(c, shard);
    /* While the line is away: the bookkeeping. */
    uint64_t *counter = op & SIO_WRITE ? &to->stat->writes : &to->stat->reads;
    sio_count(*counter);

    enum sio_outcome outcome = unlikely((number & (SIO_PATIENCE_EVERY - 1)) == SIO_PATIENCE_EVERY / 2)
                                   ? await_reply_timed(c, to, seq, data)
                                   : await_reply(c, to->box, shard, seq, &to->patience, data);
    if (unlikely(sample))
        take_sample(c, to->stat, sio_ticks() - begin);
    if (unlikely(outcome == SIO_NOT_ANSWERED))
        sio_count(to->stat->refused);
    return outcome;
}

/* ---- an access ----------------------------------------------------------------------------------------------------- */

/* A message for this very access may be out already: its sender died before the access was complete. Non-zero: `outcome`
 * is the answer. Zero: nothing was published, send it now. */
static NEVER_INLINE int take_up(struct sio_client *c, uint64_t *data, enum sio_outcome *outcome)
{
    const struct sio_fabric *f = &c->fabric;
    uint32_t kind = (uint32_t)(c->pending >> 62), shard = (uint32_t)(c->pending >> 56) & 63;
    uint64_t n = c->pending & SIO_PENDING_N;

    if (kind == SIO_PENDING_NONE)
        return 0;
    if (kind == SIO_PENDING_POSTED) {
        struct sio_posted *slot = sio_posted_slot(f, sio_ring(f, shard, c->vcpu), n);
        if ((c->shard[shard].posted & SIO_PENDING_N) != ((n + 1) & SIO_PENDING_N) && sio_load_relaxed(&slot->lap) != sio_posted_lap(f, n))
            return 0;
        if ((c->shard[shard].posted & SIO_PENDING_N) == n)
            c->shard[shard].posted++;
    } else {
        uint64_t state = sio_load_acquire(&sio_mailbox(f, shard, c->vcpu)->state);
        if (state >> 2 != n || (state & 3) == SIO_IDLE)
            return 0;
        c->shard[shard].seq = n;
    }
    /* The doorbell may have been the next thing that the dead one would have rung. */
    sio_fence_full();
    c->shard[shard].rung = 0;
    ring_if_dozing(c, shard);
    *outcome = kind == SIO_PENDING_POSTED ? SIO_ANSWERED : await_reply(c, sio_mailbox(f, shard, c->vcpu), shard, n, &c->unknown, data);
    return 1;
}

/* From here until the access is complete, the map that it is routed by must not lose what it needs. */
static inline void begin(struct sio_client *c)
{
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_NONE, 0, 0)); /* SP-QUIESCE, with the VMM's membarrier */
    sio_fence_compiler();
}

static NEVER_INLINE enum sio_outcome quarantined(struct sio_route *to)
{
    sio_count(to->stat->refused);
    return SIO_NOT_ANSWERED;
}

/* The access by the route that was found for it. */
static inline __attribute__((always_inline)) enum sio_outcome access_by(struct sio_client *c, struct sio_route *to,
                                                                        uint64_t address, uint32_t size, int write,
                                                                        uint64_t *data)
{
    if (unlikely(to->flags & SIO_RANGE_QUARANTINED))
        return quarantined(to);
    if (write && (to->flags & SIO_RANGE_POSTED) && address - to->base < SIO_POSTED_OFFSET)
        return post(c, to, address, size, *data);
    return request(c, to, write ? SIO_WRITE : 0, address, size, 0, data);
}

static inline __attribute__((always_inline)) enum sio_outcome access_one(struct sio_client *c, uint32_t space,
                                                                         uint64_t address, uint32_t size, int write,
                                                                         uint64_t *data)
{
    struct sio_route *to;
    enum sio_outcome outcome;

    if (unlikely(c->pending != 0) && take_up(c, data, &outcome))
        return outcome;
    begin(c);
    enum sio_route_result routed = find(c, space, address, address + size - 1, &to);
    return likely(routed == SIO_ROUTED) ? access_by(c, to, address, size, write, data) : unclaimed(c, routed, space, address, write);
}

static __attribute__((noinline)) enum sio_outcome write_one(struct sio_client *c, uint32_t space, uint64_t address,
                                                            uint32_t size, uint64_t data)
{
    return access_one(c, space, address, size, 1, &data);
}

static __attribute__((noinline)) enum sio_outcome write_by(struct sio_client *c, struct sio_route *to, uint64_t address,
                                                           uint32_t size, uint64_t data)
{
    return access_by(c, to, address, size, 1, &data);
}

static NEVER_INLINE enum sio_outcome ring_unheard(struct sio_client *c, uint32_t shard)
{
    ring_if_dozing(c, shard);
    return SIO_ANSWERED;
}

enum posting {
    POSTED,
    UNHEARD, /* posted, to an owner that sleeps: ring */
    ROUTED,  /* not posted: the access has that route */
    UNROUTED /* not posted: find its route */
};

/* Posts a write where nothing is in its way. Tens of instructions: what is in its way leaves by tail calls, so that no register is
 * saved for it here. */
static inline __attribute__((always_inline)) enum posting post_at_once(struct sio_client *c, uint32_t space, uint64_t address,
                                                                       uint32_t size, uint64_t data, struct sio_route **route)
{
    struct sio_route *to = *route = &c->route[slot_of(space, address)];
    uint64_t last = address + size - 1;

    if (unlikely(c->pending != 0))
        return UNROUTED;
    begin(c);
    if (unlikely(!hits(c, to, address, last)))
        return UNROUTED;
    if (!to->posts)
        return ROUTED;
    struct sio_client_shard *mine = &c->shard[to->shard];
    if (unlikely(mine->posted - mine->credit >= c->fabric.posted_slots || c->target != to->shard))
        return ROUTED;
    put(c, to, mine, address, size, data);
    sio_fence_compiler(); /* SP-DOZE: the owner's membarrier, between its announcement and its last look, fences this side */
    return likely((sio_load_relaxed(mine->doze) & 1) == 0) ? POSTED : UNHEARD;
}

static inline __attribute__((always_inline)) enum sio_outcome write_or_post(struct sio_client *c, uint32_t space,
                                                                            uint64_t address, uint32_t size, uint64_t data)
{
    struct sio_route *to;
    switch (post_at_once(c, space, address, size, data, &to)) {
    case POSTED:
        return SIO_ANSWERED;
    case UNHEARD:
        return ring_unheard(c, to->shard);
    case ROUTED:
        return write_by(c, to, address, size, data);
    default:
        return write_one(c, space, address, size, data);
    }
}

static inline __attribute__((always_inline)) enum sio_outcome read_one(struct sio_client *c, uint32_t space, uint64_t address,
                                                                       uint32_t size, uint64_t *data)
{
    uint64_t value = 0;
    enum sio_outcome outcome = access_one(c, space, address, size, 0, &value);
    *data = likely(outcome == SIO_ANSWERED) ? value & width_mask(size) : width_mask(size);
    return outcome;
}

enum sio_outcome sio_client_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data)
{
    if (write)
        return write_or_post(c, space, address, size, *data);
    return read_one(c, space, address, size, data);
}

enum sio_outcome sio_client_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string)
{
    uint8_t *side = sio_side(&c->fabric, c->vcpu);
    uint64_t data = 0;
    struct sio_route *to;
    enum sio_outcome outcome;

    if (c->pending != 0 && take_up(c, &data, &outcome))
        goto answered;
    begin(c);
    enum sio_route_result routed = find(c, space, address, address + size - 1, &to);
    if (routed != SIO_ROUTED)
        outcome = unclaimed(c, routed, space, address, write);
    else if (to->flags & SIO_RANGE_QUARANTINED)
        outcome = quarantined(to);
    else {
        if (write)
            copy_bytes(side, string, size * count);
        sio_count(sio_hist_of(&c->fabric, to->stat)->strings);
        outcome = request(c, to, SIO_STRING | (write ? SIO_WRITE : 0), address, size, count, &data);
    }
answered:
    if (!write && outcome == SIO_ANSWERED)
        copy_bytes(string, side, size * count);
    else if (!write && outcome == SIO_NOT_ANSWERED)
        fill_ones(string, size * count);
    return outcome;
}

static inline int sound(uint32_t space, uint32_t size)
{
    return space <= SIO_MMIO && (size == 1 || size == 2 || size == 4 || size == 8);
}

int sio_client_read(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t *data)
{
    if (!sound(space, size))
        return -EINVAL;
    enum sio_outcome outcome = read_one(c, space, address, size, data);
    sio_client_complete(c);
    return (int)outcome;
}

/* What a write comes to that was not posted at once, or not heard: the caller leaves by a tail call. */
static __attribute__((noinline)) int write_unrouted(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size,
                                                    uint64_t data)
{
    enum sio_outcome outcome = access_one(c, space, address, size, 1, &data);
    sio_client_complete(c);
    return (int)outcome;
}

static __attribute__((noinline)) int write_routed(struct sio_client *c, struct sio_route *to, uint64_t address, uint32_t size,
                                                  uint64_t data)
{
    enum sio_outcome outcome = access_by(c, to, address, size, 1, &data);
    sio_client_complete(c);
    return (int)outcome;
}

static NEVER_INLINE int write_unheard(struct sio_client *c, const struct sio_route *to)
{
    ring_if_dozing(c, to->shard);
    sio_client_complete(c);
    return SIO_ANSWERED;
}

int sio_client_write(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    struct sio_route *to;
    if (!sound(space, size))
        return -EINVAL;
    switch (post_at_once(c, space, address, size, data, &to)) {
    case POSTED:
        sio_client_complete(c);
        return SIO_ANSWERED;
    case UNHEARD:
        return write_unheard(c, to);
    case ROUTED:
        return write_routed(c, to, address, size, data);
    default:
        return write_unrouted(c, space, address, size, data);
    }
}
