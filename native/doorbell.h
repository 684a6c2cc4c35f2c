/* A client's doorbell: waking the owner that sleeps beside what was published for it. */
#ifndef SHARDIO_DOORBELL_H
#define SHARDIO_DOORBELL_H

#include "client.h"
#include "compiler.h"

static inline struct sio_vcpu_control *self(struct sio_client *c) { return &c->fabric.vcpu[c->vcpu]; }

/* Between a store that another side looks for and a look at what that side stores. With membarrier the other side, which has the
 * time, executes this side's fence between its own two; without, each side has its own. */
static ALWAYS_INLINE void fence_between(const struct sio_client *c)
{
    if (likely(c->waiter.membarrier))
        sio_fence_compiler();
    else
        sio_fence_full();
}

/* Rings a shard's doorbell, unless it has been rung in this need_wakeup. */
void sio_doorbell(struct sio_client *client, uint32_t shard, uint64_t need_wakeup);

/* An odd need_wakeup means that the owner sleeps. */
static inline void ring_if_asleep(struct sio_client *c, const struct sio_client_shard *mine, uint32_t shard)
{
    uint64_t need_wakeup = sio_load_relaxed(mine->need_wakeup);
    if (unlikely(need_wakeup & 1))
        sio_doorbell(c, shard, need_wakeup);
}

/* For whoever watches how long this client waits, and for whom. */
static inline void set_target(struct sio_client *c, uint32_t shard)
{
    if (unlikely(c->target != shard))
        sio_store_relaxed(&c->target, shard);
}

#endif
