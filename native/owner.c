/* The drain loop of a shard: when it looks at its mailboxes (mailboxes.h) and rings (drain.c), when it yields, and when it sleeps. */
#include "mailboxes.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SIO_EPOLL_NS 50000u
#define SIO_CROWDED_TIMES 64u /* what a yield has cost is at most this part of an idle owner's time */
#define SIO_EVENTS 8

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
    free(o->bells);
    o->handlers = NULL;
    o->posted = NULL;
    o->bells = NULL;
    o->bell_count = 0;
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

/* One look of the drain loop: at the mailboxes, and now and then at some rings. `all`: at idle vCPUs' too. */
static inline uint32_t look(struct sio_owner *o, int all)
{
    uint32_t n = all || o->fabric.vcpus <= SIO_FEW_VCPUS ? scan_mailboxes(o) : scan_busy(o);
    if (n && !all && o->fabric.vcpus <= SIO_FEW_VCPUS)
        rest(o);
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

int sio_owner_events(struct sio_owner *o, int epoll_fd, int timeout_ms)
{
    struct epoll_event events[SIO_EVENTS];
    uint64_t rings;
    int found = 0;
    long n = sio_syscall6(SYS_epoll_pwait, epoll_fd, (long)events, SIO_EVENTS, timeout_ms, 0, 8);
    for (long i = 0; i < n; i++) {
        if (o->deliver && o->deliver(o, &events[i]))
            found |= SIO_EVENT_BELL;
        else if (events[i].data.fd != o->doorbell)
            found |= SIO_EVENT_OTHER;
        else {
            found |= SIO_EVENT_DOORBELL;
            if (!(control(o)->need_wakeup & 1)) /* a ring that came late: what it told of has been found */
                sio_syscall3(SYS_read, o->doorbell, &rings, sizeof rings);
        }
    }
    return found;
}

/* Whether the turn should end: the event loop has something to do, or a doorbell was delivered, which may have given it something. */
static inline int host_io(struct sio_owner *o, int epoll_fd)
{
    return epoll_fd >= 0 && (sio_owner_events(o, epoll_fd, 0) & ~SIO_EVENT_DOORBELL) != 0;
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

enum idleness { NOTHING, FOUND_AT_ONCE, FOUND, HOST_IO };

/* Nothing was there at the last scan: keeps looking, by the policy of poll_budget.h, for as long as a sleep would cost. An owner that
 * has just served is asked again soon, by a request or by host I/O, so it looks at both; a look at host I/O costs half a yield.
 * `served`: the requests that it had served when the turn began. An owner that has served none since, and whose yields let another
 * program run, sleeps at once and does not yield for a while: the scheduler runs who has yielded last, also milliseconds later, when
 * it is woken. */
static enum idleness linger(struct sio_owner *o, int epoll_fd, uint64_t served)
{
    uint64_t polls = sio_poll_budget_polls(&o->poll_budget), start = 0, now, before;
    int crowded = 0;
    if (polls) {
        do {
            for (uint32_t i = 0; i < o->fabric.polls; i++) {
                sio_relax();
                if (look(o, 0)) {
                    o->poll_budget.yield_bias = 0;
                    return start ? FOUND : FOUND_AT_ONCE;
                }
            }
            now = sio_ticks(); /* only now: the next request of a busy client has come */
            start = start ? start : now;
            if (host_io(o, epoll_fd))
                return HOST_IO;
        } while (now - start < polls);
    }
    if (o->pause)
        o->pause(o);
    before = sio_ticks();
    start = start ? start : before;
    if (o->served == served && sio_owner_crowded(o, before))
        return NOTHING;
    do {
        sio_yield();
        sio_count(control(o)->yields);
        now = sio_ticks();
        crowded |= now - before > o->poll_budget.quick;
        before = now;
        if (look(o, 1)) {
            sio_poll_budget_found(&o->poll_budget, now - start, crowded);
            return FOUND;
        }
        if (host_io(o, epoll_fd))
            return HOST_IO;
        if (crowded && o->served == served)
            break;
    } while (now - start < o->yield_ticks);
    o->crowded = crowded ? now + (now - start) * SIO_CROWDED_TIMES : 0;
    sio_poll_budget_vain(&o->poll_budget);
    return NOTHING;
}

enum sio_turn sio_owner_turn(struct sio_owner *o, uint64_t turn_ns, int epoll_fd)
{
    uint64_t turn_ticks = sio_ns_to_ticks(&o->fabric, turn_ns);
    uint64_t start = sio_ticks(), looked = start, served = o->served;

    o->turn_end = start + turn_ticks;
    o->thread = (uint64_t)pthread_self();
    wake_up(o);
    for (uint32_t rounds = 1;; rounds++) {
        enum idleness idle = look(o, 0) ? FOUND_AT_ONCE : linger(o, epoll_fd, served);
        if (idle == HOST_IO)
            return SIO_TURN_EVENTS;
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
            if (host_io(o, epoll_fd))
                return SIO_TURN_EVENTS;
        }
    }
}
