/* How long an owner that has nothing to do polls before it yields.
 *
 * Facts. The exits of a guest come every 5 to 10 us, further apart than a client may spin. An owner that yields meanwhile finds the
 * next request half a yield later, and takes the interpreter again that it gave up before. Where nobody else wants the CPU a
 * yield comes back within half a microsecond and gives nothing to anybody. Where the client itself waits for this CPU, or
 * another program does, a yield takes as long as that one runs, two switches at least, and polls keep the CPU from it.
 *
 * Consequences. While yields come back at once, an owner polls for twice the time that its requests are apart, if that is no more
 * than SIO_POLL_BUDGET_NS; as soon as one does not, for as long as a client spins; and where that happens again and again, it yields at once. One wait
 * in SIO_POLL_BUDGET_TRIAL polls for that long whatever the rule says, so that the yields behind it tell what has changed.
 */
#ifndef SHARDIO_POLL_BUDGET_H
#define SHARDIO_POLL_BUDGET_H

#include "wait.h"

#define SIO_POLL_BUDGET_NS 20000u
#define SIO_POLL_BUDGET_TRIAL 32u

struct sio_poll_budget { /* times in ticks */
    uint64_t polls;      /* for now: from `least` to `most` */
    uint64_t least;
    uint64_t most;
    uint64_t quick;
    uint32_t yield_bias; /* waits in a row that ended after somebody else ran */
    uint32_t waits;
};

static inline void sio_poll_budget_init(struct sio_poll_budget *p, const struct sio_fabric *f)
{
    p->polls = p->least = f->spin_ticks;
    p->most = sio_ns_to_ticks(f, SIO_POLL_BUDGET_NS);
    p->quick = f->quick_yield_ticks;
    p->yield_bias = p->waits = 0;
}

/* A wait begins: how long to poll before the first yield. 0: not at all. */
static inline uint64_t sio_poll_budget_polls(struct sio_poll_budget *p)
{
    if (++p->waits % SIO_POLL_BUDGET_TRIAL == 0)
        return p->least;
    return p->yield_bias < SIO_YIELD_BIAS ? p->polls : 0;
}

/* A request came after `idle` ticks, the last of them in yields. `crowded`: one of these let somebody else run. */
static inline void sio_poll_budget_found(struct sio_poll_budget *p, uint64_t idle, int crowded)
{
    uint64_t twice = 2 * idle < p->most ? 2 * idle : p->most;
    p->polls = crowded || idle > p->most || twice < p->least ? p->least : twice;
    p->yield_bias = crowded ? p->yield_bias + (p->yield_bias < SIO_YIELD_BIAS) : 0;
}

/* None came within all polls and yields. */
static inline void sio_poll_budget_vain(struct sio_poll_budget *p) { p->polls = p->least; }

#endif
