/* The vCPU's side of an access, in the order of its path: route, publish, ring the doorbell, wait, take the reply. */
#include "client_parts.h"

static void copy_bytes(uint8_t *to, const uint8_t *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = from[i];
}

/* What a client knows by address: of the segment as it is mapped in this process. */
static void bind_segment(struct sio_client *c, const struct sio_fabric *f)
{
    c->fabric = *f;
    c->open.limit = 0;
    c->coalesced = 0;
    sio_routes_init(c);
    for (uint32_t s = 0; s < SIO_MAX_SHARDS; s++)
        c->doorbell[s] = -1;
    for (uint32_t s = 0; s < f->shards; s++) {
        c->shard[s].box = sio_mailbox(f, s, c->vcpu);
        c->shard[s].ring = sio_ring(f, s, c->vcpu);
        c->shard[s].need_wakeup = &f->shard[s].need_wakeup;
    }
    sio_waiter_init(&c->waiter, f);
}

void sio_client_init(struct sio_client *c, const struct sio_fabric *f, uint32_t vcpu)
{
    __builtin_memset(c, 0, sizeof *c);
    c->vcpu = vcpu;
    bind_segment(c, f);
    for (uint32_t s = 0; s < SIO_MAX_SHARDS; s++)
        c->near[s] = (uint8_t)((vcpu + s) % f->shards);
    /* Segment memory may have served a client before: go on from what it holds, behind what that one posted last. */
    for (uint32_t s = 0; s < f->shards; s++) {
        c->shard[s].seq = sio_load_relaxed(&sio_mailbox(f, s, vcpu)->state) >> 2;
        uint64_t taken = sio_load_relaxed(&sio_credit(f, s, vcpu)->taken), posted = taken;
        while (posted - taken < f->posted_slots &&
               sio_load_acquire(&sio_posted_slot(f, sio_ring(f, s, vcpu), posted)->lap) == sio_posted_lap(f, posted))
            posted++;
        c->shard[s].posted = posted;
        c->shard[s].credit = taken;
    }
}

void sio_client_attach(struct sio_client *c, const struct sio_fabric *f)
{
    bind_segment(c, f);
    sio_client_resume(c);
}

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

static NEVER_INLINE enum sio_outcome unclaimed(struct sio_client *c, enum sio_route_result why, uint32_t space,
                                               uint64_t address, uint32_t size, int write)
{
    struct sio_vcpu_control *me = self(c);
    sio_note_access(why == SIO_CROSSING ? &me->crossed : &me->unclaimed, space, address, size, write);
    if (why == SIO_CROSSING)
        sio_count(me->crossing);
    else if (write)
        sio_count(me->unclaimed_writes);
    else
        sio_count(me->unclaimed_reads);
    return SIO_NOT_ANSWERED;
}

/* ---- synchronous --------------------------------------------------------------------------------------------------- */

/* The reply's state is not what it should be: refused, aborted, or nonsense. */
static NEVER_INLINE enum sio_outcome no_answer(struct sio_client *c, uint64_t seq, uint64_t state)
{
    if (state == SIO_STATE(seq, SIO_REQUEST))
        return SIO_ABORTED;
    if (state != SIO_STATE(seq, SIO_REFUSED))
        sio_count(self(c)->malformed);
    return SIO_NOT_ANSWERED;
}

static NEVER_INLINE void note_lines(struct sio_client *c, uint32_t shard, uint32_t lines)
{
    uint32_t granted = sio_load_relaxed(&c->granted[shard]);
    c->lines |= lines & ((granted ? granted | SIO_LINE_MOVED | SIO_LINE_OUTPUT_MOVED : 0) | SIO_LINE_HOLD);
}

static ALWAYS_INLINE enum sio_outcome await_reply(struct sio_client *c, struct sio_mailbox *box, uint32_t shard, uint64_t seq,
                                                  struct sio_first_poll *first_poll, uint64_t *data)
{
    uint64_t state = sio_wait_change(&c->waiter, self(c), &box->state, SIO_STATE(seq, SIO_REQUEST), first_poll); /* SP-REPLY */
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
    struct sio_first_poll *first_poll = &to->first_poll;
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = await_reply(c, to->box, to->shard, seq, first_poll, data);
    sio_first_poll_learn(first_poll, sio_ticks() - begin);
    return outcome;
}

static NEVER_INLINE void take_sample(struct sio_client *c, struct sio_stat *stat, uint64_t ticks)
{
    sio_stat_sample(&c->fabric, stat, ticks);
    c->sampling = c->accesses < SIO_SAMPLE_FIRST ? 0 : c->sample_mask;
}

static NEVER_INLINE void refused(const struct sio_client *c, const struct sio_route *to, int write, uint64_t address, uint32_t size)
{
    sio_count(to->stat->refused);
    sio_note_access(&sio_hist_of(&c->fabric, to->stat)->refused, to->space, address, size, write);
}

static ALWAYS_INLINE enum sio_outcome request(struct sio_client *c, struct sio_route *to, uint32_t op, uint64_t address,
                                              uint32_t size, uint32_t count, uint64_t *data)
{
    uint32_t shard = to->shard;
    struct sio_client_shard *mine = &c->shard[shard];
    uint64_t seq = (mine->seq + 1) & SIO_PENDING_N;
    uint64_t draw = c->accesses++ * 0x9e3779b97f4a7c15u >> 32; /* drawn, so that devices asked in turn are all timed */
    uint64_t command = to->command | sio_command(0, count, op, size, 0), begin = 0;
    int sample = (draw & c->sampling) == 0;
    if (unlikely(sample)) {
        command |= sio_command(0, 0, SIO_SAMPLE, 0, 0);
        begin = sio_ticks();
    }

    set_target(c, shard);
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_SYNC, shard, seq));
    mine->seq = seq;
    sio_fence_compiler();
    sio_mailbox_request(to->box, SIO_STATE(seq, SIO_REQUEST), address, *data, mine->posted, command);
    /* SP-WAKEUP: the publication was a full fence */
    ring_if_asleep(c, shard);
    /* While the line is away: the bookkeeping. */
    uint64_t *counter = op & SIO_WRITE ? &to->stat->writes : &to->stat->reads;
    sio_count(*counter);

    enum sio_outcome outcome;
    if (unlikely((draw >> 16 & (SIO_FIRST_POLL_EVERY - 1)) == 0)) {
        uint64_t timed = *data; /* in memory only here: another access's stays in a register */
        outcome = await_reply_timed(c, to, seq, &timed);
        *data = timed;
    } else
        outcome = await_reply(c, to->box, shard, seq, &to->first_poll, data);
    if (unlikely(sample))
        take_sample(c, to->stat, sio_ticks() - begin);
    if (unlikely(outcome == SIO_NOT_ANSWERED)) /* the address from the line: no register holds it while an access waits */
        refused(c, to, op & SIO_WRITE, sio_load_relaxed(&to->box->address), size);
    return outcome;
}

/* ---- an access ----------------------------------------------------------------------------------------------------- */

/* A message for this very access may be out already: its sender died before the access was complete. Non-zero: `outcome`
 * is the answer. Zero: nothing was published, send it now. */
static NEVER_INLINE int resume_in_flight(struct sio_client *c, uint64_t *data, enum sio_outcome *outcome)
{
    uint32_t kind = (uint32_t)(c->pending >> 62), shard = (uint32_t)(c->pending >> 56) & 63;
    uint64_t n = c->pending & SIO_PENDING_N;
    struct sio_client_shard *to = &c->shard[shard];

    if (kind == SIO_PENDING_NONE)
        return 0;
    if (kind == SIO_PENDING_POSTED) {
        uint64_t position = position_named(c->pending, to->posted);
        if (sio_load_relaxed(&sio_posted_slot(&c->fabric, to->ring, position)->lap) != sio_posted_lap(&c->fabric, position)) {
            note_posted(c, SIO_PENDING(0, shard, n));
            c->resting = 0;
            return 0;
        }
    } else {
        uint64_t state = sio_load_acquire(&to->box->state);
        if (state >> 2 != n || (state & 3) == SIO_IDLE)
            return 0;
        to->seq = n;
    }
    /* The doorbell may have been the next thing that the dead one would have rung. */
    sio_fence_full();
    to->rung = 0;
    ring_if_asleep(c, shard);
    *outcome = kind == SIO_PENDING_POSTED ? SIO_ANSWERED : await_reply(c, to->box, shard, n, &c->unknown, data);
    return 1;
}

/* From here until the access is complete, the map that it is routed by must not lose what it needs. Non-zero: the access had
 * begun before, and has `outcome`. */
static ALWAYS_INLINE int begin(struct sio_client *c, uint64_t *data, enum sio_outcome *outcome)
{
    uint64_t pending = c->pending;
    if (unlikely(pending >> 62)) {
        uint64_t resumed = *data;
        if (resume_in_flight(c, &resumed, outcome)) {
            *data = resumed;
            return 1;
        }
    } else if (pending) {
        note_posted(c, pending);
        c->resting = pending;
    }
    sio_fence_compiler();
    sio_store_release(&c->pending, SIO_PENDING(SIO_PENDING_NONE, 0, 0)); /* SP-QUIESCE */
    fence_between(c); /* SP-QUIESCE: marked, now look at the map */
    return 0;
}

/* Whether a write by this route may be posted now. Not while the shard has not taken yet what this vCPU may have written before,
 * in KVM's coalesced ring: then it waits its turn. */
static ALWAYS_INLINE int posts_now(const struct sio_client *c, const struct sio_route *to, uint64_t address)
{
    if (!(to->flags & SIO_RANGE_POSTED) || address - to->base >= SIO_POSTED_OFFSET)
        return 0;
    return likely(!(to->flags & SIO_ROUTE_COALESCED)) ||
           sio_load_relaxed(&c->coalesced[0]) == sio_load_acquire(&c->coalesced[1]); /* SP-COALESCED */
}

/* The access by the route that was found for it. */
static ALWAYS_INLINE enum sio_outcome access_by(struct sio_client *c, struct sio_route *to, uint64_t address, uint32_t size,
                                                int write, uint64_t *data)
{
    if (unlikely(to->flags & SIO_RANGE_QUARANTINED)) {
        refused(c, to, write, address, size);
        return SIO_NOT_ANSWERED;
    }
    if (write && posts_now(c, to, address))
        return sio_post(c, to, address, size, *data);
    return request(c, to, write ? SIO_WRITE : 0, address, size, 0, data);
}

static ALWAYS_INLINE enum sio_outcome access_one(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                                 uint64_t *data)
{
    struct sio_route *to;
    enum sio_outcome outcome;

    if (begin(c, data, &outcome))
        return outcome;
    enum sio_route_result routed = find(c, space, address, address + size - 1, &to);
    return likely(routed == SIO_ROUTED) ? access_by(c, to, address, size, write, data)
                                       : unclaimed(c, routed, space, address, size, write);
}

static inline enum sio_outcome ended(struct sio_client *c, int complete, enum sio_outcome outcome)
{
    if (complete)
        sio_client_complete(c);
    return outcome;
}

static inline int sound(uint32_t space, uint32_t size)
{
    return space <= SIO_MMIO && size <= 8 && sio_width_mask[size];
}

/* A write that is not posted at once. `bare`: of a caller without a vCPU. */
static __attribute__((noinline)) int write_one(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data,
                                               int bare)
{
    if (bare && !sound(space, size))
        return -EINVAL;
    return (int)ended(c, bare, access_one(c, space, address, size, 1, &data));
}

static NEVER_INLINE int ring_unheard(struct sio_client *c, uint32_t shard, int bare)
{
    ring_if_asleep(c, shard);
    return (int)ended(c, bare, SIO_ANSWERED);
}

static inline int posts(const struct sio_route *to, uint32_t space, uint64_t address, uint32_t size)
{
    return size - 1 < 8 && address - to->base < to->reach[size - 1] && space == to->space;
}

/* A write by a route that posts it at once, if its ring is open and has room: four stores, some forty instructions, and no register
 * to save, since all else leaves by tail calls. The journal is marked before the route is known to be right: where it is not, the
 * mark is taken back, and nothing was published. */
static ALWAYS_INLINE int post(struct sio_client *c, const struct sio_route *to, uint32_t space, uint64_t address, uint32_t size,
                              uint64_t data, int bare)
{
    uint64_t pending = c->pending, n = pending ^ to->open;
    if (unlikely(n >= c->open.limit)) /* where another ring is open, or none, n has other bits */
        return write_one(c, space, address, size, data, bare);
    sio_store_relaxed(&c->pending, pending | SIO_PENDING(SIO_PENDING_POSTED, 0, 0)); /* SP-QUIESCE, with the VMM's membarrier */
    sio_fence_compiler();
    if (unlikely(!current(c))) {
        sio_store_relaxed(&c->pending, pending);
        return write_one(c, space, address, size, data, bare);
    }
    put(c, to, n, address - to->base, size, data);
    sio_fence_compiler(); /* SP-WAKEUP: the owner's membarrier, between its announcement and its last look, fences this side */
    if (unlikely(sio_load_relaxed(c->open.need_wakeup) & 1))
        return ring_unheard(c, to->shard, bare);
    if (bare)
        sio_store_release(&c->pending, pending + 1); /* SP-QUIESCE */
    return SIO_ANSWERED;
}

/* Not by the route that was posted to last: by the one that is kept for this address, or not at once. */
static __attribute__((noinline)) int write_elsewhere(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size,
                                                     uint64_t data, int bare)
{
    const struct sio_route *to = route_at(c, space, address);
    if (!posts(to, space, address, size))
        return write_one(c, space, address, size, data, bare);
    c->last = to;
    return post(c, to, space, address, size, data, bare);
}

static ALWAYS_INLINE int write_or_post(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data,
                                       int bare)
{
    const struct sio_route *to = c->last;
    return likely(posts(to, space, address, size)) ? post(c, to, space, address, size, data, bare)
                                                   : write_elsewhere(c, space, address, size, data, bare);
}

static ALWAYS_INLINE enum sio_outcome read_one(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size,
                                               uint64_t *data)
{
    uint64_t value = 0;
    enum sio_outcome outcome = access_one(c, space, address, size, 0, &value);
    *data = likely(outcome == SIO_ANSWERED) ? value & sio_width_mask[size] : sio_width_mask[size];
    return outcome;
}

enum sio_outcome sio_client_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data)
{
    return write ? (enum sio_outcome)write_or_post(c, space, address, size, *data, 0) : read_one(c, space, address, size, data);
}

enum sio_outcome sio_client_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string)
{
    uint8_t *side = sio_side(&c->fabric, c->vcpu);
    uint64_t data = 0;
    struct sio_route *to;
    enum sio_outcome outcome;

    if (begin(c, &data, &outcome))
        goto answered;
    enum sio_route_result routed = find(c, space, address, address + size - 1, &to);
    if (routed != SIO_ROUTED)
        outcome = unclaimed(c, routed, space, address, size, write);
    else if (to->flags & SIO_RANGE_QUARANTINED) {
        refused(c, to, write, address, size);
        outcome = SIO_NOT_ANSWERED;
    } else {
        if (write)
            copy_bytes(side, string, size * count);
        sio_count(sio_hist_of(&c->fabric, to->stat)->strings);
        outcome = request(c, to, SIO_STRING | (write ? SIO_WRITE : 0), address, size, count, &data);
    }
answered:
    if (!write && outcome == SIO_ANSWERED)
        copy_bytes(string, side, size * count);
    else if (!write && outcome == SIO_NOT_ANSWERED)
        sio_fill(string, 0xff, size * count);
    return outcome;
}

int sio_client_read(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t *data)
{
    if (!sound(space, size))
        return -EINVAL;
    enum sio_outcome outcome = read_one(c, space, address, size, data);
    sio_client_complete(c);
    return (int)outcome;
}

int sio_client_write(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    return write_or_post(c, space, address, size, data, 1);
}
