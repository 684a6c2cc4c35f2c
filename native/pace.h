/* What the constants of waiting are on this host: they follow `pause` and yield, measured once, by who makes the fabric.
 *
 * Facts. A `pause` takes 25 to 30 ns on the hosts that the waits were tuned on, 3 on older processors, and 45 to 70 where it is 140
 * cycles. A yield that nobody else wants comes back within half a microsecond there, and after one or two where system calls are
 * dear; one that lets the peer run takes 1.6 on the quickest host. A virtual CPU is slower by a factor of ten for milliseconds now
 * and then: about one measurement in 30 is of such a time. How far apart two CPUs are is no constant at all: first_poll.h follows it
 * from wait to wait.
 *
 * Consequences. There are as many polls between two looks at the clock as take about SIO_LOOK_NS: with slow pauses as many as
 * elsewhere would be a spin in themselves. A yield has let somebody else run where it took SIO_QUICK_YIELDS times the quickest
 * one. Its upper limit lies below a yield that lets the peer run: were that thought quick, an owner would keep the CPU from its
 * client for a whole poll budget (18 us an access instead of 2.3). A wait spins for what a few yields cost, since that is what it
 * saves. An owner rests for about SIO_REST_NS after it has answered (owner.c): less than it takes on any host until the answer has
 * reached the client and its next request has come back. Each is held within limits, since the header is written by a peer, too.
 */
#ifndef SHARDIO_PACE_H
#define SHARDIO_PACE_H

#include "fabric.h"
#include "sys.h"

#define SIO_LOOK_NS 1600u
#define SIO_LEAST_POLLS 8u
#define SIO_MOST_POLLS 512u
#define SIO_REST_NS 36u
#define SIO_LEAST_REST 1u
#define SIO_MOST_REST 16u
#define SIO_SPIN_NS 3000u         /* at the least */
#define SIO_SPIN_MOST_NS 5000u    /* longer is too long where both ends have one CPU */
#define SIO_SPIN_YIELDS 6u
#define SIO_QUICK_YIELD_NS 1000u  /* at the least */
#define SIO_QUICK_YIELD_MOST_NS 1500u
#define SIO_QUICK_YIELDS 3u

#define SIO_PACE_PAUSES 64u
#define SIO_PACE_TRIES 16u
#define SIO_PACE_NS 2000000u      /* a CPU that others want gives no quick yield, however often it is tried */

static inline uint64_t sio_within(uint64_t value, uint64_t least, uint64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Ticks of SIO_PACE_PAUSES pauses, and of a yield: the least of some tries. */
static inline void sio_pace_measure(const struct sio_fabric *f, uint32_t *pauses, uint32_t *yield)
{
    uint64_t begun = sio_ticks(), enough = sio_ns_to_ticks(f, SIO_PACE_NS);
    *pauses = *yield = ~0u;
    for (uint32_t i = 0; i < SIO_PACE_TRIES && (i == 0 || sio_ticks() - begun < enough); i++) {
        uint64_t start = sio_ticks(), paused;
        for (uint32_t n = 0; n < SIO_PACE_PAUSES; n++)
            sio_relax();
        paused = sio_ticks();
        sio_yield();
        uint64_t yielded = sio_ticks() - paused;
        *pauses = paused - start < *pauses ? (uint32_t)(paused - start) : *pauses;
        *yield = yielded < *yield ? (uint32_t)yielded : *yield;
    }
}

static inline void sio_pace_follow(struct sio_fabric *f, uint32_t pauses, uint32_t yield)
{
    uint64_t look = sio_ns_to_ticks(f, SIO_LOOK_NS) * SIO_PACE_PAUSES, rest = sio_ns_to_ticks(f, SIO_REST_NS) * SIO_PACE_PAUSES;
    pauses = pauses ? pauses : 1;
    f->polls = (uint32_t)sio_within(look / pauses, SIO_LEAST_POLLS, SIO_MOST_POLLS);
    f->rest = (uint32_t)sio_within((rest + pauses / 2) / pauses, SIO_LEAST_REST, SIO_MOST_REST);
    f->spin_ticks = sio_within((uint64_t)yield * SIO_SPIN_YIELDS, sio_ns_to_ticks(f, SIO_SPIN_NS),
                               sio_ns_to_ticks(f, SIO_SPIN_MOST_NS));
    f->quick_yield_ticks = sio_within((uint64_t)yield * SIO_QUICK_YIELDS, sio_ns_to_ticks(f, SIO_QUICK_YIELD_NS),
                                      sio_ns_to_ticks(f, SIO_QUICK_YIELD_MOST_NS));
}

#endif
