/* How long a client lets pass before it looks for its reply the first time.
 *
 * Facts. A line that its owner has fetched with a request stays in the owner's cache until somebody looks: the reply is then
 * stored at once. A client that looks in between takes a copy away, and the owner has to claim the line back, which costs up
 * to half a round trip. Looking late costs what it is late by. A native handler answers before the first poll of a client
 * that does not wait at all; a short Python one is best left alone for 50 ns, more where the CPUs are far apart. On a virtual
 * machine that changes from one millisecond to the next.
 *
 * Consequences. The time is followed from wait to wait: shorter by a little where the reply was there at the first look,
 * longer by more where it was not. Whether that is better than not to wait at all is tried now and then: some sixty accesses
 * the one way, as many the other, the last of each timed.
 */
#ifndef SHARDIO_FIRST_POLL_H
#define SHARDIO_FIRST_POLL_H

#include "fabric.h"

#define SIO_FIRST_POLL_EVERY 64u  /* accesses to one whose wait is timed; a power of two */
#define SIO_FIRST_POLL_TURNS 128u /* timed waits of either way to a choice; even */
#define SIO_FIRST_POLL_REST 8192u /* timed waits between a choice and the next trial */
#define SIO_FIRST_POLL_LEAST 32u  /* ticks */
#define SIO_FIRST_POLL_MOST 2048u

/* Of one route. */
struct sio_first_poll {
    uint32_t ticks;              /* 0: look at once */
    uint32_t followed;           /* what it is where it is not 0 */
    uint32_t n;                  /* timed waits of this trial */
    uint32_t rest;               /* timed waits until the next one */
    uint64_t total[2];           /* ticks waited: without, with */
};

/* The first look, after `p->ticks`, found the reply. */
static inline void sio_first_poll_hit(struct sio_first_poll *p)
{
    p->ticks -= p->ticks > SIO_FIRST_POLL_LEAST ? p->ticks / 128 + 1 : 0;
}

static inline void sio_first_poll_miss(struct sio_first_poll *p)
{
    p->ticks += p->ticks < SIO_FIRST_POLL_MOST ? p->ticks / 32 + 4 : 0;
}

/* A timed wait took `ticks`. */
static inline void sio_first_poll_learn(struct sio_first_poll *p, uint64_t ticks)
{
    if (p->ticks)
        p->followed = p->ticks;
    if (p->rest) {
        p->rest--;
        return;
    }
    p->total[p->ticks != 0] += ticks < SIO_FIRST_POLL_MOST ? ticks : SIO_FIRST_POLL_MOST;
    uint32_t with = p->ticks == 0;
    if (++p->n >= 2 * SIO_FIRST_POLL_TURNS) {
        with = p->total[1] + p->total[1] / 64 < p->total[0];
        p->rest = SIO_FIRST_POLL_REST;
        p->n = 0;
        p->total[0] = p->total[1] = 0;
    }
    p->ticks = with ? p->followed + !p->followed * SIO_FIRST_POLL_LEAST : 0;
}

#endif
