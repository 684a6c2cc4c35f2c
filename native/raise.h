/* The raise page: how a shard raises an interrupt of a software CPU, without a system call unless a vCPU sleeps.
 *
 * One bit for each interrupt (its handle): a pending edge, or a level that is asserted. Shards and workers map it; the VMM says
 * elsewhere, where shards cannot write, what a handle stands for. `sequence` is the one futex that a sleeping vCPU waits on:
 * whoever gives it something to do counts it up. A hostile shard can raise what is not its own, no more.
 */
#ifndef SHARDIO_RAISE_H
#define SHARDIO_RAISE_H

#include "order.h"
#include "sys.h"

#define SIO_RAISE_WORDS 16u
#define SIO_RAISE_HANDLES (64u * SIO_RAISE_WORDS)

struct sio_raise {
    uint32_t sequence;                  /* futex. Writers: all */
    uint32_t sleepers;                  /* vCPUs in a futex wait, about to be, or just woken. Writers: workers */
    uint64_t changed;                   /* bit n: word n of one of the two was changed. Writers: all */
    uint64_t pad[6];
    uint64_t edge[SIO_RAISE_WORDS];     /* set by shards, taken by workers */
    uint64_t level[SIO_RAISE_WORDS];    /* set and cleared by shards */
};

/* Something is to be done: wakes every vCPU that sleeps. SP-WAKEUP: the count is a full fence before the look at the sleepers. */
static inline void sio_raise_wake(struct sio_raise *page)
{
    __atomic_fetch_add(&page->sequence, 1, __ATOMIC_SEQ_CST);
    if (sio_load_relaxed(&page->sleepers))
        sio_futex_wake(&page->sequence);
}

void sio_raise_edge(struct sio_raise *page, uint32_t handle);
void sio_raise_level(struct sio_raise *page, uint32_t handle, int high);
/* Takes away what a handle has raised: it is given to another. */
void sio_raise_clear(struct sio_raise *page, uint32_t handle);

#endif
