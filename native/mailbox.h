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

/* What an access of this many bytes holds of a value. 0: no access has that size. */
static const uint64_t sio_width_mask[16] = {0, 0xff, 0xffff, 0, 0xffffffff, 0, 0, 0, ~0ull};

/* A request as one side copied it: what is checked and used, never the line again. */
struct sio_message {
    uint64_t state;
    uint64_t address;
    uint64_t data;
    uint64_t posted_upto;
    uint64_t command;
};

/* The same, its command taken apart. */
struct sio_request {
    uint64_t state;
    uint64_t address;
    uint64_t data;
    uint64_t posted_upto;
    uint16_t range;
    uint16_t count;
    uint8_t op;
    uint8_t size;
    uint8_t space;
};

static inline uint64_t sio_command(uint32_t range, uint32_t count, uint32_t op, uint32_t size, uint32_t space)
{
    return (uint64_t)range | (uint64_t)count << 16 | (uint64_t)op << 32 | (uint64_t)size << 40 | (uint64_t)space << 48;
}

static inline uint32_t sio_command_range(uint64_t command) { return (uint16_t)command; }
static inline uint32_t sio_command_op(uint64_t command) { return (uint8_t)(command >> 32); }
static inline uint32_t sio_command_size(uint64_t command) { return (uint8_t)(command >> 40); }

static inline struct sio_request sio_request_of(struct sio_message m)
{
    return (struct sio_request){
        .state = m.state,
        .address = m.address,
        .data = m.data,
        .posted_upto = m.posted_upto,
        .range = (uint16_t)m.command,
        .count = (uint16_t)(m.command >> 16),
        .op = (uint8_t)(m.command >> 32),
        .size = (uint8_t)(m.command >> 40),
        .space = (uint8_t)(m.command >> 48),
    };
}

static inline void sio_mailbox_request(struct sio_mailbox *box, uint64_t state, uint64_t address, uint64_t data,
                                       uint64_t posted_upto, uint64_t command)
{
    sio_store_relaxed(&box->address, address);
    sio_store_relaxed(&box->data, data);
    sio_store_relaxed(&box->posted_upto, posted_upto);
    sio_store_relaxed(&box->command, command);
    sio_publish(&box->state, state); /* SP-REQUEST */
}

/* The owner's look: non-zero and a copy when a request is there. */
static inline int sio_mailbox_poll(const struct sio_mailbox *box, struct sio_message *message)
{
    uint64_t state = sio_load_acquire(&box->state); /* SP-REQUEST */
    if (__builtin_expect((state & 3) != SIO_REQUEST, 1))
        return 0;
    *message = (struct sio_message){
        .state = state,
        .address = sio_load_relaxed(&box->address),
        .data = sio_load_relaxed(&box->data),
        .posted_upto = sio_load_relaxed(&box->posted_upto),
        .command = sio_load_relaxed(&box->command),
    };
    return 1;
}

/* `lines`: interrupts that the handler raised, for the vCPU worker to pulse before the guest goes on. */
static inline void sio_mailbox_reply(struct sio_mailbox *box, uint64_t state, uint32_t phase, uint64_t data, uint64_t lines)
{
    sio_store_relaxed(&box->data, data);
    sio_store_relaxed(&box->lines, lines);
    sio_publish(&box->state, (state & ~3ull) | phase); /* SP-REPLY */
}

#endif
