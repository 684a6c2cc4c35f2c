/* What the parts of an owner's sources share: owner.c (the loop), mailboxes.h, drain.c (the posted rings). */
#ifndef SHARDIO_OWNER_PARTS_H
#define SHARDIO_OWNER_PARTS_H

#include "compiler.h"
#include "owner.h"

/* The number of a handler's range, and the row of an owner's histograms. */
static inline uint32_t range_of(const struct sio_owner *o, const struct sio_handler *h) { return (uint32_t)(h - o->handlers); }
static inline uint32_t own_row(const struct sio_owner *o) { return o->fabric.vcpus + o->shard; }

/* Non-zero when the handler failed. `*value`: cut to the access's width, whatever a peer put above it. */
static ALWAYS_INLINE int handle(struct sio_owner *o, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write,
                                uint64_t *value)
{
    int failed = likely(h->kind == SIO_NATIVE) ? h->native(h->context, offset, size, (int)write, value)
                                               : o->python(o, h, offset, size, write, value);
    if (unlikely(failed))
        o->failed++;
    return failed;
}

/* A handler failed and no client is told so: counts it, and notes where it was. */
void sio_refused(const struct sio_owner *owner, const struct sio_handler *handler, uint64_t offset, uint32_t size, int write);

/* Serves up to `limit` posted writes of one vCPU, and stops soon after `until` (ticks; 0: never); returns how many. */
uint32_t sio_drain(struct sio_owner *owner, uint32_t vcpu, uint64_t limit, uint64_t until);
/* Serves what is in every vCPU's ring by now. */
uint32_t sio_drain_all(struct sio_owner *owner);

#endif
