/* The synchronous path: one 64-byte line per (vCPU, shard), request and reply in the same line.
 *
 * Facts. A vCPU has at most one access in flight, so it needs one line, always the same one. Request and reply in one line
 * cost one transfer each way, the floor of any two CPUs; a ring with the reply elsewhere costs twice that.
 *
 * Consequences. The state word hands the line over: the client writes it while IDLE, DONE or REFUSED and publishes REQUEST
 * (SP-REQUEST); the owner writes data and publishes DONE or REFUSED (SP-REPLY). Both publish with an exchange: the fence
 * that the sleep/wake hand-shake needs comes with it, and on this path costs nothing measurable.
 */
#ifndef SHARDIO_MAILBOX_H
#define SHARDIO_MAILBOX_H

#include "fabric.h"

#define SIO_JOURNAL(vcpu, seq) (((uint64_t)(vcpu) << 48) | ((seq) & 0xffffffffffffull))

/* A request as one side copied it: what is checked and used, never the line again. */
struct sio_request {
    uint64_t state;
    uint64_t address;
    uint64_t data;
    uint64_t posted_upto;
    uint32_t range;
    uint32_t count;
    uint8_t op;
    uint8_t size;
    uint8_t space;
};

static inline void sio_mailbox_request(struct sio_mailbox *box, const struct sio_request *request)
{
    box->address = request->address;
    box->data = request->data;
    box->posted_upto = request->posted_upto;
    box->range = request->range;
    box->count = request->count;
    box->op = request->op;
    box->size = request->size;
    box->space = request->space;
    sio_publish(&box->state, request->state); /* SP-REQUEST */
}

/* The owner's look: non-zero and a copy when a request is there. */
static inline int sio_mailbox_poll(const struct sio_mailbox *box, struct sio_request *request)
{
    uint64_t state = sio_load_acquire(&box->state); /* SP-REQUEST */
    if (__builtin_expect((state & 3) != SIO_REQUEST, 1))
        return 0;
    request->state = state;
    request->address = sio_load_relaxed(&box->address);
    request->data = sio_load_relaxed(&box->data);
    request->posted_upto = sio_load_relaxed(&box->posted_upto);
    request->range = sio_load_relaxed(&box->range);
    request->count = sio_load_relaxed(&box->count);
    request->op = sio_load_relaxed(&box->op);
    request->size = sio_load_relaxed(&box->size);
    request->space = sio_load_relaxed(&box->space);
    return 1;
}

static inline void sio_mailbox_reply(struct sio_mailbox *box, uint64_t state, uint32_t phase, uint64_t data)
{
    sio_store_relaxed(&box->data, data);
    sio_publish(&box->state, (state & ~3ull) | phase); /* SP-REPLY */
}

#endif
