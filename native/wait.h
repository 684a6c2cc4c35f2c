/* How a client waits: spin, then yield, then sleep; and how it is woken.
 *
 * Facts. A line crosses CPUs in about 0.06 us; a cross-CPU wake-up costs about 50 us; a yield to a peer on the same CPU
 * about 3 us, where a spin without one costs a whole scheduler slice. Acquire and release alone lose wake-ups: the
 * sleeper's look at the word may pass its own announcement, and the waker's look at the announcement its own publish.
 *
 * A poll that meets the peer at work on the line takes a copy away, which the peer has to claim back before it can write:
 * polls closer than a `pause` to each other meet it more often (first_poll.h).
 *
 * Consequences. Spin for 3 to 5 us (pace.h), one `pause` a poll from the first; yield between polls for about what a wake-up
 * costs, which bounds the loss at twice the best; then announce sleep, full fence, look again, and sleep with a time-out.
 * Where recent waits ended only after a yield, both peers share a CPU: start with the yield, and try the spin again
 * every 32nd time. A waker publishes, full fence, then looks for the announcement (SP-WAKEUP).
 */
#ifndef SHARDIO_WAIT_H
#define SHARDIO_WAIT_H

#include "fabric.h"
#include "first_poll.h"
#include "sys.h"

#define SIO_YIELD_NS 40000u
#define SIO_SLEEP_NS 10000000u
#define SIO_VAIN_SLEEPS 32u   /* sleeps of one wait that ended early and in vain: from then on it naps, and announces nothing */
#define SIO_NAP_NS 1000000u
#define SIO_YIELD_BIAS 4u

/* What a process gives up before it lets the CPU go, and takes back itself when the access is over (pycalls.c: the interpreter). */
struct sio_pause {
    void (*run)(struct sio_pause *pause); /* may be called more than once in an access */
};

struct sio_waiter {
    uint64_t spin_ticks;
    uint32_t polls;
    uint64_t yield_ticks;
    const uint32_t *abort;      /* when *abort == abort_value the wait gives up; may be NULL */
    uint32_t abort_value;
    uint32_t membarrier;        /* the sleeping side fences the other side too */
    uint32_t yield_bias;        /* waits in a row that a spin did not end */
    uint32_t waits;
    struct sio_pause *pause;    /* of the access in hand; NULL: none */
};

static inline void sio_waiter_init(struct sio_waiter *w, const struct sio_fabric *f)
{
    w->spin_ticks = f->spin_ticks;
    w->polls = f->polls;
    w->yield_ticks = sio_ns_to_ticks(f, SIO_YIELD_NS);
    w->abort = 0;
    w->abort_value = 0;
    w->membarrier = 0;
    w->yield_bias = 0;
    w->waits = 0;
    w->pause = 0;
}

static inline int sio_waiter_aborted(const struct sio_waiter *w)
{
    return w->abort && sio_load_acquire(w->abort) == w->abort_value;
}

/* The slow half: yields, then sleeps on the vCPU's futex. Returns the new value, or `old` when aborted. */
static __attribute__((noinline)) uint64_t sio_wait_slow(struct sio_waiter *w, struct sio_vcpu_control *self,
                                                        const uint64_t *word, uint64_t old)
{
    if (w->pause)
        w->pause->run(w->pause);
    uint64_t now, start = sio_ticks();
    do {
        sio_yield();
        sio_count(self->yields);
        if ((now = sio_load_acquire(word)) != old) {
            w->yield_bias += w->yield_bias < SIO_YIELD_BIAS;
            return now;
        }
    } while (sio_ticks() - start < w->yield_ticks);

    for (uint32_t vain = 0;;) {
        if (vain == SIO_VAIN_SLEEPS) { /* any shard may write `need_wakeup`: one that never lets it be costs others no membarriers */
            sio_nap(SIO_NAP_NS);
            if ((now = sio_load_acquire(word)) != old || sio_waiter_aborted(w))
                break;
            continue;
        }
        sio_publish(&self->need_wakeup, 1); /* SP-WAKEUP: announce, fence */
        if (w->membarrier)
            sio_membarrier(); /* the fence of an owner that returns credits without one */
        if ((now = sio_load_acquire(word)) != old || sio_waiter_aborted(w))
            break;
        sio_count(self->sleeps);
        long ret = sio_futex_wait(&self->need_wakeup, 1, SIO_SLEEP_NS);
        now = sio_load_acquire(word);
        if (now != old) {
            /* Found by the time-out, and nobody had taken the announcement back: a wake-up was lost. */
            if (ret == -ETIMEDOUT && sio_load_relaxed(&self->need_wakeup) == 1) {
                sio_yield();
                if (sio_load_acquire(&self->need_wakeup) == 1)
                    sio_count(self->lost_wakeups);
            }
            break;
        }
        vain += ret != -ETIMEDOUT;
    }
    sio_store_relaxed(&self->need_wakeup, 0);
    return now;
}

/* Lets some ticks pass. */
static inline void sio_pass(uint32_t ticks)
{
    uint64_t start = sio_ticks();
    while (sio_ticks() - start < ticks)
        ;
}

/* Waits until *word is no longer `old`; returns what it is then, or `old` when the wait was aborted. `first_poll`: when to look
 * first (first_poll.h). */
static inline uint64_t sio_wait_change(struct sio_waiter *w, struct sio_vcpu_control *self, const uint64_t *word,
                                       uint64_t old, struct sio_first_poll *first_poll)
{
    uint64_t now;
    if (w->yield_bias < SIO_YIELD_BIAS || (++w->waits & 31u) == 0) {
        uint64_t start = 0, spent;
        if (first_poll->ticks) {
            sio_pass(first_poll->ticks);
            if ((now = sio_load_acquire(word)) != old) {
                sio_first_poll_hit(first_poll);
                goto spun;
            }
            sio_first_poll_miss(first_poll);
        }
        do {
            for (uint32_t i = 0; i < w->polls; i++) {
                sio_relax();
                if ((now = sio_load_acquire(word)) != old)
                    goto spun;
            }
            spent = sio_ticks(); /* only now: most replies have come */
            start = start ? start : spent;
        } while (spent - start < w->spin_ticks);
    }
    return sio_wait_slow(w, self, word, old);
spun:
    w->yield_bias = 0;
    return now;
}

/* After a publish with a full fence: wakes the client if it sleeps. */
static inline void sio_wake_client(struct sio_vcpu_control *client)
{
    if (__builtin_expect(sio_load_relaxed(&client->need_wakeup) != 0, 0) && sio_swap_if(&client->need_wakeup, 1u, 0u))
        sio_futex_wake(&client->need_wakeup);
}

#endif
