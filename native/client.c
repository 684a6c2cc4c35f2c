/* The entry points of a client: an access is begun, or taken up where a predecessor died; routed; then posted or asked. */
#include "journal.h"
#include "posting.h"
#include "request.h"
#include "route_cache.h"
#include "trace.h"

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
    ring_if_asleep(c, &c->shard[shard], shard);
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

/* The end of an access that had begun before. That it was refused is counted here: nobody waited for it in `request`. */
static NEVER_INLINE enum sio_outcome resumed(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                             enum sio_outcome outcome)
{
    struct sio_route *to;
    if (outcome == SIO_NOT_ANSWERED && find(c, space, address, address + size - 1, &to) == SIO_ROUTED)
        refused(c, to, write, address, size);
    return outcome;
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
        return resumed(c, space, address, size, write, outcome);
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
    ring_if_asleep(c, &c->shard[shard], shard);
    return (int)ended(c, bare, SIO_ANSWERED);
}

/* A write by a route that posts it at once (posting.h). All but the usual end leaves by a tail call. */
static ALWAYS_INLINE int post(struct sio_client *c, const struct sio_route *to, uint32_t space, uint64_t address, uint32_t size,
                              uint64_t data, int bare)
{
    enum sio_at_once posted = post_at_once(c, to, address, size, data, bare);
    if (unlikely(posted == SIO_NOT_POSTED))
        return write_one(c, space, address, size, data, bare);
    if (unlikely(posted == SIO_POSTED_UNHEARD))
        return ring_unheard(c, to->shard, bare);
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

enum sio_outcome sio_client_untraced(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                     uint64_t *data)
{
    return write ? (enum sio_outcome)write_or_post(c, space, address, size, *data, 0) : read_one(c, space, address, size, data);
}

enum sio_outcome sio_client_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data)
{
    if (sio_client_traced(c))
        return sio_trace_access(c, space, address, size, write, data);
    return write ? (enum sio_outcome)write_or_post(c, space, address, size, *data, 0) : read_one(c, space, address, size, data);
}

/* A string up to its reply: what was read is in the side page. */
static enum sio_outcome string_one(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write, uint32_t count,
                                   const uint8_t *string)
{
    uint64_t data = 0;
    struct sio_route *to;
    enum sio_outcome outcome;

    if (begin(c, &data, &outcome)) {
        resumed(c, space, address, size, write, outcome);
        return outcome;
    }
    enum sio_route_result routed = find(c, space, address, address + size - 1, &to);
    if (routed != SIO_ROUTED)
        return unclaimed(c, routed, space, address, size, write);
    if (to->flags & SIO_RANGE_QUARANTINED) {
        refused(c, to, write, address, size);
        return SIO_NOT_ANSWERED;
    }
    if (write)
        copy_bytes(sio_side(&c->fabric, c->vcpu), string, size * count);
    return request(c, to, SIO_STRING | (write ? SIO_WRITE : 0), address, size, count, &data);
}

enum sio_outcome sio_client_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string)
{
    if (sio_client_traced(c))
        return sio_trace_string(c, space, address, size, write, count, string);
    return sio_client_untraced_string(c, space, address, size, write, count, string);
}

enum sio_outcome sio_client_untraced_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write,
                                            uint32_t count, uint8_t *string)
{
    enum sio_outcome outcome = string_one(c, space, address, size, write, count, string);
    if (!write && outcome == SIO_ANSWERED)
        copy_bytes(string, sio_side(&c->fabric, c->vcpu), size * count);
    else if (!write && outcome == SIO_NOT_ANSWERED)
        sio_fill(string, 0xff, size * count);
    return outcome;
}

int sio_client_read(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t *data)
{
    if (!sound(space, size))
        return -EINVAL;
    enum sio_outcome outcome = sio_client_traced(c) ? sio_trace_access(c, space, address, size, 0, data)
                                                    : read_one(c, space, address, size, data);
    sio_client_complete(c);
    return (int)outcome;
}

static NEVER_INLINE int write_traced(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    if (!sound(space, size))
        return -EINVAL;
    return (int)ended(c, 1, sio_trace_access(c, space, address, size, 1, &data));
}

int sio_client_write(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    if (sio_client_traced(c))
        return write_traced(c, space, address, size, data);
    return write_or_post(c, space, address, size, data, 1);
}
