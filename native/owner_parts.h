/* What the parts of an owner's sources share: owner.c (the loop and the mailboxes), drain.c (the posted rings). */
#ifndef SHARDIO_OWNER_PARTS_H
#define SHARDIO_OWNER_PARTS_H

#include "owner.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline, cold))

/* A handler sees the access's width, whatever a peer put above it. */
static inline uint64_t width_mask(uint32_t size) { return ~0ull >> (64 - size * 8); }

/* Non-zero when the handler failed. */
static inline int handle(struct sio_owner *o, const struct sio_handler *h, struct sio_access *a)
{
    a->value &= width_mask(a->size);
    int failed = likely(h->kind == SIO_NATIVE) ? h->native(h->context, a->offset, a->size, a->write, &a->value)
                                               : o->python(o, h, a);
    if (unlikely(failed))
        o->failed++;
    return failed;
}

/* Serves up to `limit` posted writes of one vCPU, none that begins after `until` (ticks, 0: whenever); returns how many. */
uint32_t sio_drain(struct sio_owner *owner, uint32_t vcpu, uint64_t limit, uint64_t until);

#endif
