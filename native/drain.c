/* A shard's side of the posted rings.
 *
 * Facts. Posted writes come in runs to one device. What a message costs here is instructions: the look-up of its handler, the
 * checks, the journal. A line that another CPU wrote takes as long to come as some thirty messages take to handle.
 *
 * Consequences. What the messages of a run have in common is worked out once. Lap and range are one comparison, offset and
 * width another. The lines ahead are fetched.
 */
#include "owner_parts.h"
#include "trace_owner.h"

#define NO_RANGE ~0u /* no slot can name it */

/* Posted writes that follow each other, to one range. */
struct run {
    const struct sio_handler *handler;
    struct sio_stat *stat;
    uint32_t range;
    uint32_t n;   /* of them so far, not counted yet */
    int every;    /* the range has had so few that each is timed */
};

/* Counts what there was of a run. */
static void count_run(struct run *run)
{
    if (run->n)
        sio_store_relaxed(&run->stat->posted, run->stat->posted + run->n);
    run->n = 0;
    run->every = run->stat && run->stat->posted < SIO_POSTED_SAMPLE;
}

static int fits(const struct sio_handler *h, const struct sio_posted_write *m)
{
    return m->offset + (uint64_t)m->size - 1 <= h->last - h->base;
}

/* A run to another range. Zero: there is no handler that wants the write. */
static int begin_run(struct sio_owner *o, const struct sio_posted_write *m, struct run *run)
{
    const struct sio_fabric *f = &o->fabric;
    const struct sio_handler *h = m->range < f->ranges ? &o->handlers[m->range] : NULL;

    count_run(run);
    *run = (struct run){.range = NO_RANGE};
    if (!h || h->kind == SIO_NO_HANDLER || !fits(h, m))
        return 0;
    run->handler = h;
    run->stat = sio_stat(f, o->shard, m->range);
    run->range = m->range;
    count_run(run);
    return 1;
}

NEVER_INLINE void sio_refused(const struct sio_owner *o, const struct sio_handler *h, uint64_t offset, uint32_t size, int write)
{
    uint32_t range = range_of(o, h);
    sio_count(sio_stat(&o->fabric, o->shard, range)->refused);
    sio_note_access(&sio_hist_to_write(&o->fabric, own_row(o), range)->last_refused, h->space, h->base + offset, size, write);
}

/* Any posted write. `sample`: time it. Negative where no handler wants it, else non-zero where the handler failed. */
static int apply(struct sio_owner *o, const struct sio_posted_write *m, struct run *run, int sample)
{
    if ((m->range != run->range || !fits(run->handler, m)) && !begin_run(o, m, run)) {
        sio_count(o->control->malformed);
        return -1;
    }
    uint64_t value = m->data & sio_width_mask[m->size];
    sample |= run->every;
    uint64_t begin = sample ? sio_ticks() : 0;
    run->n++;
    int failed = handle(o, run->handler, m->offset, m->size, 1, &value);
    if (sample)
        sio_hist_sample(&o->fabric, own_row(o), run->range, sio_ticks() - begin);
    if (unlikely(failed))
        sio_refused(o, run->handler, m->offset, m->size, 1);
    return failed;
}

/* The same, with a trace record. `position`: in the ring of `vcpu`; without one, it came through KVM's ring. */
static NEVER_INLINE void apply_traced(struct sio_owner *o, const struct sio_posted_write *m, struct run *run, int sample,
                                      uint32_t vcpu, uint64_t position)
{
    uint64_t begin = sio_ticks();
    int failed = apply(o, m, run, sample);
    if (failed < 0)
        return;
    const struct sio_handler *h = run->handler;
    struct sio_service s = {
        .vcpu = vcpu,
        .range = m->range,
        .message = position,
        .address = h->base + m->offset,
        .value = m->data & sio_width_mask[m->size],
        .size = m->size,
        .flags = SIO_TRACE_WRITE | (vcpu == SIO_TRACE_NO_VCPU ? SIO_TRACE_COALESCED : SIO_TRACE_POSTED) |
                 (h->space == SIO_MMIO ? SIO_TRACE_MMIO : 0),
        .failed = failed,
        .begin = begin,
        .end = sio_ticks(),
    };
    sio_trace_service(o, &s);
}

/* The one position of each SIO_POSTED_SAMPLE that is timed: anywhere, or ranges that are written in turn would be timed never or
 * always. */
static inline uint64_t timed_of(uint64_t block)
{
    return block * SIO_POSTED_SAMPLE + (block * 0x9e3779b97f4a7c15u >> 32) % SIO_POSTED_SAMPLE;
}

void sio_owner_apply(struct sio_owner *o, const struct sio_posted_write *write)
{
    struct run run = {.range = NO_RANGE};
    int sample = o->served == timed_of(o->served / SIO_POSTED_SAMPLE);
    if (sio_owner_traced(o))
        apply_traced(o, write, &run, sample, SIO_TRACE_NO_VCPU, 0);
    else
        apply(o, write, &run, sample);
    count_run(&run);
    o->served++;
}

/* Each return wakes: handlers may be slow, and a client that finds credit by its time-out takes it for a lost wake-up. */
static __attribute__((noinline)) void return_credit(struct sio_owner *o, uint32_t vcpu, uint64_t position)
{
    sio_store_release(&sio_credit(&o->fabric, o->shard, vcpu)->credit, position); /* SP-CREDIT */
    if (!o->membarrier)
        sio_fence_full();
    sio_wake_client(&o->fabric.vcpu[vcpu]); /* SP-WAKEUP: a client that sleeps for want of credit has fenced this side */
}

/* The journal, before the effect. */
static inline void take(struct sio_credit *credit, uint64_t position)
{
    sio_store_relaxed(&credit->taken, position);
    sio_fence_release();
}

/* What goes on with a run to a native handler, up to `n` writes from `position` on, inside one lap: returns how many. */
static uint32_t go_on(struct sio_owner *o, struct sio_posted *ring, struct sio_credit *credit, uint64_t position, uint32_t n,
                      struct run *run)
{
    const struct sio_fabric *f = &o->fabric;
    const struct sio_handler *h = run->handler;
    const struct sio_posted *slot = sio_posted_slot(f, ring, position), *begin = slot, *end = slot + n;
    const struct sio_posted *ahead = sio_posted_slot(f, ring, position + SIO_AHEAD);
    uint64_t last = h->last - h->base;
    const uint32_t within[4] = {sio_posted_reach(last, 1), sio_posted_reach(last, 2), sio_posted_reach(last, 4),
                                sio_posted_reach(last, 8)};
    uint32_t wanted = sio_posted_lap(f, position) | run->range << 16;
    sio_native_handler native = h->native;
    void *context = h->context;

    for (; slot != end; slot++, ahead++) {
        uint64_t head = sio_load_acquire(&slot->head); /* SP-POST */
        uint32_t width = head >> 32 & 3, offset = (uint32_t)(head >> 34);
        if ((uint32_t)head != wanted || offset >= within[width])
            break;
        uint64_t value = sio_load_relaxed(&slot->data) & sio_width_mask[1u << width];
        __builtin_prefetch(ahead);
        take(credit, ++position);
        if (unlikely(native(context, offset, 1u << width, 1, &value))) {
            o->failed++;
            sio_refused(o, h, offset, 1u << width, 1);
        }
    }
    run->n += (uint32_t)(slot - begin);
    return (uint32_t)(slot - begin);
}

/* How many writes from `position` on come before the next one that is timed: none of them, nor the slot that is fetched ahead of
 * it, is beyond the end of the ring. */
static uint32_t stretch(const struct sio_fabric *f, uint64_t position)
{
    uint64_t block = position / SIO_POSTED_SAMPLE, timed = timed_of(block);
    uint32_t lap = f->posted_slots - (uint32_t)(position & (f->posted_slots - 1));
    uint32_t untimed = (uint32_t)((timed < position ? timed_of(block + 1) : timed) - position);
    lap = lap > SIO_AHEAD ? lap - SIO_AHEAD : lap;
    return lap < untimed ? lap : untimed;
}

uint32_t sio_drain(struct sio_owner *o, uint32_t vcpu, uint64_t limit, uint64_t until)
{
    const struct sio_fabric *f = &o->fabric;
    struct sio_posted *ring = sio_ring(f, o->shard, vcpu);
    struct sio_credit *credit = sio_credit(f, o->shard, vcpu);
    struct run run = {.range = NO_RANGE};
    struct sio_posted_write m;
    int traced = sio_owner_traced(o);
    uint64_t begin = o->posted[vcpu], position = begin, looked = begin - SIO_CALLS_PER_LOOK;

    while (position - begin < limit && sio_posted_poll(f, ring, position, &m)) {
        if (until && position - looked >= SIO_CALLS_PER_LOOK) {
            looked = position;
            if (sio_ticks() > until)
                break;
        }
        __builtin_prefetch(sio_posted_slot(f, ring, position + SIO_AHEAD));
        int now_and_then = position == timed_of(position / SIO_POSTED_SAMPLE);
        take(credit, ++position);
        if (unlikely(now_and_then)) {
            return_credit(o, vcpu, position);
            count_run(&run); /* so that no more counts than these die with a shard */
        }
        if (unlikely(traced)) {
            apply_traced(o, &m, &run, now_and_then, vcpu, position - 1);
            continue;
        }
        apply(o, &m, &run, now_and_then);
        if (run.n > 1 && run.handler->kind == SIO_NATIVE && !run.every) {
            uint64_t some = stretch(f, position), left = limit - (position - begin);
            left = until && left > SIO_RUN_PER_LOOK ? SIO_RUN_PER_LOOK : left;
            position += go_on(o, ring, credit, position, (uint32_t)(some < left ? some : left), &run);
        }
    }
    uint32_t n = (uint32_t)(position - begin);
    if (n) {
        o->posted[vcpu] = position;
        count_run(&run);
        o->served += n;
        return_credit(o, vcpu, position);
    }
    return n;
}

uint32_t sio_drain_all(struct sio_owner *o)
{
    uint32_t n = 0;
    for (uint32_t v = 0; v < o->fabric.vcpus; v++)
        n += sio_drain(o, v, o->fabric.posted_slots, 0);
    return n;
}
