/* What the parts of an owner's sources share: owner.c (the loop and the mailboxes), drain.c (the posted rings). */
#ifndef SHARDIO_OWNER_PARTS_H
#define SHARDIO_OWNER_PARTS_H

#include "owner.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline, cold))

/* What a handler sees of a value, by the access's size: its width, whatever a peer put above it. 0: no size. */
static const uint64_t sio_width_mask[16] = {[1] = 0xff, [2] = 0xffff, [4] = 0xffffffff, [8] = ~0ull};

/* Non-zero when the handler failed. `*value` is of the access's width. */
static ALWAYS_INLINE int handle(struct sio_owner *o, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write,
                                uint64_t *value)
{
    int failed = likely(h->kind == SIO_NATIVE) ? h->native(h->context, offset, size, (int)write, value)
                                               : o->python(o, h, offset, size, write, value);
    if (unlikely(failed))
        o->failed++;
    return failed;
}

/* Serves up to `limit` posted writes of one vCPU, none that begins after `until` (ticks, 0: whenever); returns how many. */
uint32_t sio_drain(struct sio_owner *owner, uint32_t vcpu, uint64_t limit, uint64_t until);

#endif
