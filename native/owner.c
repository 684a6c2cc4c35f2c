/* The drain loop of a shard, in the order of a request's path: found, checked, taken, handled, answered. */
#include "owner_parts.h"
#include "trace_owner.h"
#include "wires.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SIO_EPOLL_NS 50000u

int sio_owner_init(struct sio_owner *o, const struct sio_fabric *f, uint32_t shard, int doorbell)
{
    __builtin_memset(o, 0, sizeof *o);
    if (shard >= f->shards)
        return -EINVAL;
    o->fabric = *f;
    o->shard = shard;
    o->doorbell = doorbell;
    o->control = &f->shard[shard];
    o->boxes = sio_mailbox(f, shard, 0);
    sio_poll_budget_init(&o->poll_budget, f);
    o->yield_ticks = sio_ns_to_ticks(f, SIO_YIELD_NS);
    o->epoll_ticks = sio_ns_to_ticks(f, SIO_EPOLL_NS);
    o->handlers = aligned_alloc(SIO_LINE, f->ranges * sizeof *o->handlers);
    o->posted = calloc(f->vcpus, sizeof *o->posted);
    if (!o->handlers || !o->posted) {
        sio_owner_free(o);
        return -ENOMEM;
    }
    __builtin_memset(o->handlers, 0, f->ranges * sizeof *o->handlers);
    for (uint32_t v = 0; v < f->vcpus; v++) { /* the predecessor's journal: what it took is not taken again */
        struct sio_credit *credit = sio_credit(f, shard, v);
        o->posted[v] = sio_load_relaxed(&credit->taken);
        sio_publish(&credit->credit, o->posted[v]); /* SP-CREDIT */
        sio_wake_client(&f->vcpu[v]); /* SP-WAKEUP: it may sleep for want of just that */
    }
    o->thread = (uint64_t)pthread_self();
    o->membarrier = f->membarrier;
    if (f->membarrier && sio_membarrier_register() != 0) {
        sio_owner_free(o);
        return -EOPNOTSUPP; /* clients post without a fence: an owner that cannot fence them would miss what they post */
    }
    struct sio_shard_control *control = &f->shard[shard];
    sio_store_relaxed(&control->epoch, sio_load_relaxed(&control->owner_epoch));
    if (sio_load_relaxed(&control->need_wakeup) & 1)
        sio_store_release(&control->need_wakeup, control->need_wakeup + 1);
    return 0;
}

void sio_owner_free(struct sio_owner *o)
{
    free(o->handlers);
    free(o->posted);
    o->handlers = NULL;
    o->posted = NULL;
}

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

int sio_owner_hold(struct sio_owner *o)
{
    if (sio_load_relaxed(&o->serving) != (uint64_t)pthread_self())
        return 0;
    o->lines |= SIO_LINE_HOLD;
    return 1;
}

int sio_owner_raise(struct sio_owner *o, uint32_t gsi)
{
    if (sio_load_relaxed(&o->serving) != (uint64_t)pthread_self() || gsi >= 32)
        return 0;
    o->lines |= 1u << gsi;
    return 1;
}

int sio_owner_set_level(struct sio_owner *o, uint32_t bit, int high)
{
    uint64_t line = 1ull << (bit & 63);
    if (high)
        sio_set_bits(&control(o)->levels, line); /* SP-WIRES */
    else
        sio_clear_bits(&control(o)->levels, line); /* SP-WIRES */
    if (sio_load_relaxed(&o->serving) != (uint64_t)pthread_self())
        return 0;
    if (line == SIO_LINE_EXTINT)
        o->lines |= SIO_LINE_OUTPUT_MOVED;
    else /* it may fall, or have fallen, in the same access: a rise is an edge all the same */
        o->lines |= SIO_LINE_MOVED | (high ? (uint32_t)line : 0);
    return 1;
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

    if (string)
        elements_done(o, SIO_JOURNAL(vcpu, m->state >> 2), string->count);
    take(o, SIO_JOURNAL(vcpu, m->state >> 2));
    sio_store_relaxed(&o->serving, o->thread);
    if (string)
        handle_string(o, h, string, vcpu, &failed);
    else
        failed = handle(o, h, m->address - h->base, size, op & SIO_WRITE, &value);
    if (traced) {
        traced->end = sio_ticks();
        traced->value = string ? 0 : value & sio_width_mask[size];
        traced->failed = failed;
        sio_trace_service(o, traced); /* before the reply: whoever has that finds the record */
    }
    /* A string answers element by element: its reply is always taken, holes and all. */
    sio_mailbox_reply(box, m->state, failed && !string ? SIO_REFUSED : SIO_DONE, value, take_lines(o));
    sio_wake_client(&o->fabric.vcpu[vcpu]);

    /* While the line is away: the bookkeeping. */
    struct sio_stat *stat = sio_stat(&o->fabric, o->fabric.vcpus + o->shard, sio_command_range(m->command));
    o->served++;
    if (op & SIO_SAMPLE)
        sio_stat_sample(&o->fabric, stat, sio_ticks() - begin);
    if (op & SIO_WRITE)
        sio_count(stat->writes);
    else
        sio_count(stat->reads);
    if (string && unlikely(failed))
        sio_refused(o, stat, h, string->address - h->base, size, op & SIO_WRITE);
    else if (unlikely(failed)) /* its client notes where it was */
        sio_count(stat->refused);
}

static NEVER_INLINE void serve_traced(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box, const struct sio_message *m,
                                      const struct sio_handler *h, const struct sio_request *r)
{
    uint32_t string = r->op & SIO_STRING;
    struct sio_service s = {.vcpu = vcpu, .range = r->range, .message = r->state >> 2, .address = r->address, .size = r->size,
                            .count = string ? r->count : 0, .begin = sio_ticks()};
    s.flags = (r->op & SIO_WRITE ? SIO_TRACE_WRITE : 0) | (r->space ? SIO_TRACE_MMIO : 0) | (string ? SIO_TRACE_STRING : 0);
    serve(o, vcpu, box, m, h, string ? r : NULL, &s);
}

/* A request that is none of the usual ones: a string, one that posted writes come before, one that is traced, or nonsense. */
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
        serve_traced(o, vcpu, box, m, h, &r);
    else
        serve(o, vcpu, box, m, h, string ? &r : NULL, NULL);
}

static ALWAYS_INLINE void serve_found(struct sio_owner *o, uint32_t vcpu, struct sio_mailbox *box, struct sio_message m)
{
    const struct sio_handler *h = find_handler(o, &m);
    if (likely(h && !(sio_command_op(m.command) & SIO_STRING) && m.posted_upto == o->posted[vcpu] && !o->drain_coalesced &&
               !sio_owner_traced(o)))
        serve(o, vcpu, box, &m, h, NULL, NULL);
    else {
        struct sio_message kept = m; /* in memory only here: a usual one stays in registers */
        serve_unusual(o, vcpu, box, &kept);
    }
}

/* Each ring in its turn, however hot: one that is never empty must not keep the others from theirs. */
static uint32_t sweep(struct sio_owner *o)
{
    uint64_t until = o->python ? o->turn_end : 0;
    uint32_t n = 0, vcpus = o->fabric.vcpus;
    for (uint32_t i = 0; i < SIO_SWEEP && i < vcpus; i++) {
        uint32_t got = sio_drain(o, o->sweep, SIO_POSTED_BATCH, until);
        n += got;
        o->sweep = o->sweep + 1 < vcpus ? o->sweep + 1 : 0;
        if (got == SIO_POSTED_BATCH) /* a full batch: come back at the next look */
            o->looks = SIO_SWEEP_EVERY - 1;
        if (got == SIO_POSTED_BATCH || (got && until && sio_ticks() > until)) /* the next one begins the next sweep */
            break;
    }
    return n;
}

static uint32_t scan_mailboxes(struct sio_owner *o)
{
    struct sio_mailbox *box = o->boxes;
    struct sio_message m;
    uint32_t n = 0, vcpus = o->fabric.vcpus;
    for (uint32_t v = 0; v < vcpus; v++)
        if (unlikely(sio_mailbox_poll(&box[v], &m))) {
            serve_found(o, v, &box[v], m);
            n++;
        }
    return n;
}

/* One look of the drain loop: at every mailbox, and now and then at some rings. */
static inline uint32_t look(struct sio_owner *o)
{
    uint32_t n = scan_mailboxes(o);
    if (o->posted_ranges && unlikely((++o->looks & (SIO_SWEEP_EVERY - 1)) == 0)) {
        n += serve_coalesced(o);
        n += sweep(o);
    }
    return n;
}

uint32_t sio_owner_scan(struct sio_owner *o)
{
    uint32_t n = scan_mailboxes(o);
    n += serve_coalesced(o);
    return n + (o->posted_ranges ? sio_drain_all(o) : 0);
}

void sio_owner_flush(struct sio_owner *o)
{
    serve_coalesced(o);
    sio_drain_all(o);
}

static int host_io_ready(int epoll_fd)
{
    struct epoll_event event;
    return epoll_fd >= 0 && sio_syscall6(SYS_epoll_pwait, epoll_fd, (long)&event, 1, 0, 0, 8) > 0;
}

/* Announces sleep, fences both sides, looks again. Non-zero: asleep. */
static int need_wakeup(struct sio_owner *o)
{
    struct sio_shard_control *c = control(o);
    sio_publish(&c->need_wakeup, c->need_wakeup + 1); /* SP-WAKEUP */
    if (o->posted_ranges && o->membarrier)
        sio_membarrier(); /* the fence of every client that posts without one */
    if (sio_owner_scan(o) == 0) {
        sio_count(c->sleeps);
        return 1;
    }
    sio_store_release(&c->need_wakeup, c->need_wakeup + 1);
    return 0;
}

/* Whether there is a request for which nobody has rung. */
static int unannounced(struct sio_owner *o)
{
    uint64_t need_wakeup = control(o)->need_wakeup;
    for (uint32_t v = 0; v < o->fabric.vcpus; v++) {
        const struct sio_mailbox *box = sio_mailbox(&o->fabric, o->shard, v);
        if ((sio_load_acquire(&box->state) & 3) == SIO_REQUEST && sio_load_relaxed(&box->rung) != need_wakeup)
            return 1;
    }
    return 0;
}

/* `need_wakeup` is odd until here: whoever published something before this had to ring. Work without a ring was a lost wake-up. That
 * the doorbell is silent proves nothing, since an event loop may have read it before this turn. */
static void wake_up(struct sio_owner *o)
{
    struct sio_shard_control *c = control(o);
    uint64_t rings;
    if (!(c->need_wakeup & 1))
        return;
    if (o->doorbell >= 0 && sio_syscall3(SYS_read, o->doorbell, &rings, sizeof rings) == -EAGAIN && unannounced(o)) {
        /* The client rings right after it publishes: give it that moment. */
        struct pollfd bell = {.fd = o->doorbell, .events = POLLIN};
        struct timespec moment = {0, 20000000};
        if (sio_syscall6(SYS_ppoll, (long)&bell, 1, (long)&moment, 0, 8, 0) == 0 && unannounced(o))
            sio_count(c->lost_wakeups);
    }
    sio_store_release(&c->need_wakeup, c->need_wakeup + 1);
}

enum idleness { NOTHING, FOUND_AT_ONCE, FOUND };

/* Nothing was there at the last scan: keeps looking, by the policy of poll_budget.h, for as long as a sleep would cost. */
static enum idleness linger(struct sio_owner *o)
{
    uint64_t polls = sio_poll_budget_polls(&o->poll_budget), start = 0, now, before;
    int crowded = 0;
    if (polls) {
        do {
            for (uint32_t i = 0; i < SIO_POLLS; i++) {
                sio_relax();
                if (look(o)) {
                    o->poll_budget.yield_bias = 0;
                    return start ? FOUND : FOUND_AT_ONCE;
                }
            }
            now = sio_ticks(); /* only now: the next request of a busy client has come */
            start = start ? start : now;
        } while (now - start < polls);
    }
    if (o->pause)
        o->pause(o);
    before = sio_ticks();
    start = start ? start : before;
    do {
        sio_yield();
        sio_count(control(o)->yields);
        now = sio_ticks();
        crowded |= now - before > o->poll_budget.quick;
        before = now;
        if (look(o)) {
            sio_poll_budget_found(&o->poll_budget, now - start, crowded);
            return FOUND;
        }
    } while (now - start < o->yield_ticks);
    sio_poll_budget_vain(&o->poll_budget);
    return NOTHING;
}

enum sio_turn sio_owner_turn(struct sio_owner *o, uint64_t turn_ns, int epoll_fd)
{
    uint64_t turn_ticks = sio_ns_to_ticks(&o->fabric, turn_ns);
    uint64_t start = sio_ticks(), looked = start;

    o->turn_end = start + turn_ticks;
    o->thread = (uint64_t)pthread_self();
    wake_up(o);
    for (uint32_t rounds = 1;; rounds++) {
        enum idleness idle = look(o) ? FOUND_AT_ONCE : linger(o);
        if (idle == NOTHING && need_wakeup(o)) {
            if (o->pause)
                o->pause(o);
            return SIO_TURN_ASLEEP;
        }
        /* The clock, now and then; sooner where Python was called, which may be slow. */
        if (idle == FOUND_AT_ONCE && (rounds & 31) && o->called < SIO_CALLS_PER_LOOK)
            continue;
        o->called = 0;
        uint64_t now = sio_ticks();
        if (now > o->turn_end)
            return SIO_TURN_HOT;
        if (now - looked > o->epoll_ticks) {
            looked = now;
            if (host_io_ready(epoll_fd))
                return SIO_TURN_EVENTS;
        }
    }
}
