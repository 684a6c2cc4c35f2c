/* Rings an owner's doorbell. */
#include "doorbell.h"

#include "trace.h"

void __attribute__((cold)) sio_doorbell(struct sio_client *c, uint32_t shard, uint64_t need_wakeup)
{
    if (c->shard[shard].rung == need_wakeup) /* one ring per need_wakeup is enough: the eventfd keeps it */
        return;
    if (c->doorbell[shard] >= 0) {
        sio_store_relaxed(&c->shard[shard].box->rung, need_wakeup); /* before it can be heard: see wake_up in owner.c */
        sio_eventfd_ring(c->doorbell[shard]);
        sio_count(self(c)->doorbells);
        if (sio_client_traced(c))
            sio_trace_doorbell(c, shard);
    }
    c->shard[shard].rung = need_wakeup;
}

