/* A shard's mailboxes: a request is found, checked, taken, handled, counted and answered. Included by owner.c alone, whose loop it is.
 *
 * Facts. Looking at the line of a vCPU that asks nothing is a load from the first-level cache; at those of 256 such vCPUs it is half
 * the cache, and longer than a round trip. A word that says who asks would be one more line that both sides write.
 * Consequence. Of many vCPUs, an owner looks at those that asked lately, and in turn at a few of the others.
 */
#ifndef SHARDIO_MAILBOXES_H
#define SHARDIO_MAILBOXES_H

#include "owner_parts.h"
#include "trace_owner.h"
#include "wires.h"

#define SIO_FEW_VCPUS 16u      /* so many mailboxes are looked at all, each time */
#define SIO_IDLE_VCPUS 4u      /* of more vCPUs: mailboxes of idle ones per look, in turn */
#define SIO_IDLE_AFTER 4096u   /* looks after which a vCPU that has asked nothing is idle */

static inline struct sio_shard_control *control(struct sio_owner *o) { return o->control; }

/* The handler of a range, if it is this shard's and the access lies inside. */
static ALWAYS_INLINE const struct sio_handler *find_handler(struct sio_owner *o, const struct sio_message *m)
{
    uint32_t range = sio_command_range(m->command), size = sio_command_size(m->command);
    if (range >= o->fabric.ranges || size > 8 || !sio_width_mask[size])
        return NULL;
    const struct sio_handler *h = &o->handlers[range];
    uint64_t offset = m->address - h->base, span = h->last - h->base;
    if (h->kind == SIO_NO_HANDLER || (uint8_t)(m->command >> 48) != h->space || offset > span || span - offset < size - 1)
        return NULL;
    return h;
}

/* How many elements of a string its owner's predecessor has done. Noted before the string is taken: a kill in between leaves the
 * journal at another request. */
static void elements_done(struct sio_owner *o, uint64_t journal, uint32_t count)
{
    struct sio_shard_control *c = control(o);
    uint64_t done = sio_load_relaxed(&c->interrupted) == journal ? sio_load_relaxed(&c->element) : 0;
    if (done > count)
        done = count;
    sio_store_relaxed(&c->element, done);
    sio_fence_release();
}

static NEVER_INLINE void handle_string(struct sio_owner *o, const struct sio_handler *h, const struct sio_request *r, uint32_t vcpu,
                                       int *failed)
{
    uint64_t done = sio_load_relaxed(&control(o)->element);
    uint8_t *element = sio_side(&o->fabric, vcpu) + done * r->size;
    for (uint32_t i = (uint32_t)done; i < r->count; i++, element += r->size) {
        uint64_t value = 0;
        if (r->op & SIO_WRITE)
            __builtin_memcpy(&value, element, r->size);
        if (handle(o, h, r->address - h->base, r->size, r->op & SIO_WRITE, &value)) {
            *failed = 1; /* this element only: the guest reads all-ones for it, or its write is dropped */
            value = ~0ull;
        }
        if (!(r->op & SIO_WRITE))
            __builtin_memcpy(element, &value, r->size);
        sio_store_release(&control(o)->element, i + 1ull); /* after its answer */
    }
}

static void take(struct sio_owner *o, uint64_t journal)
{
    struct sio_shard_control *c = control(o);
    sio_store_relaxed(&c->taken, journal);
    sio_store_relaxed(&c->progress, c->progress + 1);
    sio_fence_release(); /* what the handler does comes after: a taken mark may lack its effect, never the reverse */
}

static inline uint32_t serve_coalesced(struct sio_owner *o)
{
    return unlikely(o->drain_coalesced != NULL) ? o->drain_coalesced(o) : 0;
}

/* The lines that a handler raised leave with the reply; what is raised later goes the way of every trigger. */
static uint32_t take_lines(struct sio_owner *o)
{
    uint32_t lines = o->lines;
    sio_store_relaxed(&o->serving, 0);
    o->lines = 0;
    return lines;
}

static NEVER_INLINE void refuse(struct sio_owner *o, uint32_t vcpu, uint64_t state)
{
    sio_mailbox_reply(sio_mailbox(&o->fabric, o->shard, vcpu), state, SIO_REFUSED, ~0ull, 0);
    sio_wake_client(&o->fabric.vcpu[vcpu]);
}

/* Program order: what the vCPU posted before this request comes first. Zero when the count cannot be true. */
static int flush_before(struct sio_owner *o, uint32_t vcpu, uint64_t posted_upto)
{
    serve_coalesced(o); /* which drains what was posted before it */
    uint64_t behind = posted_upto - o->posted[vcpu];
    if (likely(behind == 0))
        return 1;
    return behind <= o->fabric.posted_slots && sio_drain(o, vcpu, behind, 0) == behind;
}

/* Takes, handles, answers and counts one request that was found sound. `string`: it, taken apart, if it is one. `traced`: for its
 * trace record, NULL: there is none. */
static ALWAYS_INLINE void serve(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box, const struct sio_message *m,
                                const struct sio_handler *h, const struct sio_request *string, struct sio_service *traced)
{
    uint32_t op = sio_command_op(m->command), size = sio_command_size(m->command);
    uint64_t begin = op & SIO_SAMPLE ? sio_ticks() : 0, value = m->data & sio_width_mask[size];
    int failed = 0;

    struct sio_stat *stat = sio_stat(&o->fabric, o->shard, sio_command_range(m->command));
    __builtin_prefetch(stat, 1);
    if (string)
        elements_done(o, SIO_JOURNAL(vcpu, m->state >> 2), string->count);
    take(o, SIO_JOURNAL(vcpu, m->state >> 2));
    sio_store_relaxed(&o->serving, o->thread);
    if (string)
        handle_string(o, h, string, vcpu, &failed);
    else
        failed = handle(o, h, m->address - h->base, size, op & SIO_WRITE, &value);
    if (traced) {
        traced->value = string ? 0 : value & sio_width_mask[size];
        traced->failed = failed;
    }
    /* A string answers element by element: its reply is always taken, holes and all. */
    sio_mailbox_reply(box, m->state, failed && !string ? SIO_REFUSED : SIO_DONE, value, take_lines(o));
    /* While the line is away, but before whoever sleeps for it wakes and looks: the counters. */
    uint64_t *counter = op & SIO_WRITE ? &stat->writes : &stat->reads;
    sio_count(*counter);
    if (unlikely(string != NULL))
        sio_count(sio_hist_to_write(&o->fabric, own_row(o), range_of(o, h))->strings);
    if (unlikely(failed)) {
        if (string)
            sio_refused(o, h, string->address - h->base, size, op & SIO_WRITE);
        else /* its client notes where it was */
            sio_count(stat->refused);
    }
    sio_wake_client(&o->fabric.vcpu[vcpu]);
    o->served++;
    if (op & SIO_SAMPLE)
        sio_hist_sample(&o->fabric, own_row(o), range_of(o, h), sio_ticks() - begin);
}

/* `string`: as for `serve`. */
static __attribute__((noinline)) void serve_traced(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box,
                                                   const struct sio_message *m, const struct sio_handler *h,
                                                   const struct sio_request *string)
{
    uint32_t op = sio_command_op(m->command);
    struct sio_service s = {.begin = sio_ticks()};
    serve(o, vcpu, box, m, h, string, &s);
    s.end = sio_ticks(); /* as a sample's, after the reply: the vCPU waits neither for this nor for the record */
    s.vcpu = vcpu;
    s.range = sio_command_range(m->command);
    s.message = m->state >> 2;
    s.address = m->address;
    s.size = sio_command_size(m->command);
    s.count = string ? string->count : 0;
    s.flags = (op & SIO_WRITE ? SIO_TRACE_WRITE : 0) | (h->space == SIO_MMIO ? SIO_TRACE_MMIO : 0) | (string ? SIO_TRACE_STRING : 0);
    sio_trace_service(o, &s);
}

/* A request that is none of the usual ones: a string, one that posted writes come before, or nonsense. */
static __attribute__((noinline)) void serve_unusual(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box,
                                                    const struct sio_message *m)
{
    const struct sio_handler *h = find_handler(o, m);
    struct sio_request r = sio_request_of(*m);
    int string = (r.op & SIO_STRING) != 0;

    if (!h || (string && (r.count == 0 || r.count > SIO_SIDE_BYTES / r.size)) || !flush_before(o, vcpu, r.posted_upto)) {
        sio_count(control(o)->malformed);
        take(o, SIO_JOURNAL(vcpu, r.state >> 2));
        o->served++;
        refuse(o, vcpu, r.state);
    } else if (sio_owner_traced(o))
        serve_traced(o, vcpu, box, m, h, string ? &r : NULL);
    else
        serve(o, vcpu, box, m, h, string ? &r : NULL, NULL);
}

static ALWAYS_INLINE void serve_found(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box, struct sio_message m)
{
    const struct sio_handler *h = find_handler(o, &m);
    int usual = h && !(sio_command_op(m.command) & SIO_STRING) && m.posted_upto == o->posted[vcpu] && !o->drain_coalesced;
    if (likely(usual && !sio_owner_traced(o)))
        serve(o, vcpu, box, &m, h, NULL, NULL);
    else {
        struct sio_message kept = m; /* in memory only here: a usual one stays in registers */
        if (usual)
            serve_traced(o, vcpu, box, &kept, h, NULL);
        else
            serve_unusual(o, vcpu, box, &kept);
    }
}

static inline void note_busy(struct sio_owner *o, uint32_t vcpu)
{
    o->busy[vcpu / 64] |= 1ull << (vcpu & 63);
    o->asked[vcpu / 64] |= 1ull << (vcpu & 63);
}

static uint32_t scan_mailboxes(struct sio_owner *o)
{
    struct sio_mailbox *box = o->boxes;
    struct sio_message m;
    uint32_t n = 0, vcpus = o->fabric.vcpus;
    for (uint32_t v = 0; v < vcpus; v++)
        if (unlikely(sio_mailbox_poll(&box[v], &m))) {
            serve_found(o, v, &box[v], m);
            o->answered = v;
            if (vcpus > SIO_FEW_VCPUS)
                note_busy(o, v);
            n++;
        }
    return n;
}

static ALWAYS_INLINE uint32_t look_at(struct sio_owner *o, uint32_t vcpu)
{
    struct sio_mailbox *box = &o->boxes[vcpu];
    struct sio_message m;
    if (likely(!sio_mailbox_poll(box, &m)))
        return 0;
    serve_found(o, vcpu, box, m);
    o->answered = vcpu;
    note_busy(o, vcpu);
    return 1;
}

/* The mailboxes of those that asked lately, and some of the others in turn: an idle vCPU costs next to nothing, and its first request
 * waits for a microsecond at most. Before it sleeps or yields an owner looks at them all. */
static __attribute__((noinline)) uint32_t scan_busy(struct sio_owner *o)
{
    uint32_t n = 0, vcpus = o->fabric.vcpus, words = (vcpus + 63) / 64;
    for (uint32_t w = 0; w < words; w++)
        for (uint64_t busy = o->busy[w]; busy; busy &= busy - 1)
            n += look_at(o, w * 64 + (uint32_t)__builtin_ctzll(busy));
    for (uint32_t i = 0; i < SIO_IDLE_VCPUS; i++) {
        n += look_at(o, o->idle_next);
        o->idle_next = o->idle_next + 1 < vcpus ? o->idle_next + 1 : 0;
    }
    if (unlikely(o->until_idle-- == 0)) {
        o->until_idle = SIO_IDLE_AFTER;
        __builtin_memcpy(o->busy, o->asked, sizeof o->busy);
        __builtin_memset(o->asked, 0, sizeof o->asked);
    }
    return n;
}

/* Whether another vCPU asks than the one that was answered last. */
static inline int another_asks(const struct sio_owner *o)
{
    uint32_t vcpus = o->fabric.vcpus;
    for (uint32_t v = 0; v < vcpus; v++)
        if (v != o->answered && (sio_load_relaxed(&o->boxes[v].state) & 3) == SIO_REQUEST)
            return 1;
    return 0;
}

/* The owner has answered. A look at the same mailbox before the answer has got to its client finds nothing, and takes the line away
 * from the client, which is about to write its next request there: each of the two then waits for the line once more. */
static ALWAYS_INLINE void rest(const struct sio_owner *o)
{
    for (uint32_t i = 0; i < o->fabric.rest; i++) {
        sio_relax();
        if (o->fabric.vcpus > 1 && another_asks(o))
            return;
    }
}

#endif
