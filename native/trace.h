/* Trace rings: what a client or an owner has done lately, one record for each access, interrupt and doorbell, for the VMM to
 * collect.
 *
 * Facts. Whoever writes a record may be killed in the middle of it, and must not wait for whoever reads. A client or an owner that
 * is traced at all pays for two looks at the clock and for a line of memory; one that is not traced must pay next to nothing.
 *
 * Consequences. Each vCPU and each shard has a ring of its own, and goes on over the oldest records when it is full. A writer takes
 * a position first, so that the threads of a shard can share its ring; it withdraws the slot's stamp, fills the slot, and stamps
 * it with the position. The reader believes a slot that has the right stamp before and after it was copied. A position that stays
 * without its stamp was a dead writer's: it is lost, as is what was written over, and nothing else is. (A thread of a shard that is
 * suspended inside a record while its others write a whole ring may mix two records.)
 *
 * An access is traced around its entry point: nothing on its way knows of it. What became of it is read off the client's journal,
 * which still names its message then.
 */
#ifndef SHARDIO_TRACE_H
#define SHARDIO_TRACE_H

#include "client.h"

enum sio_trace_kind {
    SIO_TRACE_ACCESS,    /* by a client: from the exit to the answer, or to the posted ring */
    SIO_TRACE_SERVICE,   /* by an owner: its handler's run */
    SIO_TRACE_RAISED,    /* by an owner: line `address` is raised, or (value 0) lowered */
    SIO_TRACE_DELIVERED, /* by a client: the lines `value` (bit n: GSI n), or, where the size is 1, the vector `value` */
    SIO_TRACE_DOORBELL,  /* by a client: it wakes the shard */
    SIO_TRACE_RUNG,      /* by an owner: the doorbell `address` of a device's range was rung, `value` times */
};

enum sio_trace_outcome {
    SIO_TRACE_ANSWERED,
    SIO_TRACE_REFUSED,
    SIO_TRACE_UNCLAIMED,
    SIO_TRACE_CROSSING,
    SIO_TRACE_QUARANTINED,
    SIO_TRACE_ABORTED,
};

/* sio_trace_record.flags */
#define SIO_TRACE_WRITE 1u
#define SIO_TRACE_MMIO 2u
#define SIO_TRACE_STRING 4u
#define SIO_TRACE_POSTED 8u
#define SIO_TRACE_COALESCED 16u

#define SIO_TRACE_NO_VCPU 0xffffu

/* `range`: SIO_MAX_RANGES for what belongs to none. */
static inline int sio_trace_wants(const struct sio_fabric *f, uint32_t range)
{
    return range <= SIO_MAX_RANGES && (sio_load_relaxed(&f->trace->wanted[range / 64]) >> (range & 63) & 1);
}

static inline struct sio_trace_ring *sio_trace_ring(const struct sio_fabric *f, uint32_t row) { return &f->trace_rings[row]; }

/* The last two words of a record. Put together in registers: a word that was stored in parts cannot be loaded as one before its parts
 * have reached the cache. */
static inline uint64_t sio_trace_who(uint32_t range, uint32_t vcpu, uint32_t shard)
{
    return range | (uint64_t)(uint16_t)vcpu << 32 | (uint64_t)shard << 48;
}

static inline uint64_t sio_trace_what(uint32_t kind, uint32_t size, uint32_t flags, uint32_t outcome, uint32_t count)
{
    return (uint16_t)count | (uint64_t)kind << 16 | (uint64_t)(uint8_t)size << 24 | (uint64_t)flags << 32 | (uint64_t)outcome << 40;
}

/* A record's words behind its stamp, in their order. */
struct sio_trace_words {
    uint64_t begin, end, address, value, message, who, what;
};

/* Adds a record to a ring that several threads may write to. */
void sio_trace_put(struct sio_trace_ring *ring, const struct sio_trace_words *words);
/* Copies what has come since `*tail`, at most `room` records, and counts what is lost. `*unfinished`: what the last call stopped
 * at, 0 at first. Returns how many. */
uint64_t sio_trace_collect(const struct sio_trace_ring *ring, uint64_t *tail, uint64_t *unfinished, struct sio_trace_record *out,
                           uint64_t room, uint64_t *lost);

/* ---- a client's -------------------------------------------------------------------------------------------------------- */

static inline int sio_client_traced(const struct sio_client *c) { return __builtin_expect(sio_load_relaxed(&c->tracing) != 0, 0); }

/* The access, with a record of it; else as sio_client_access and sio_client_string. */
enum sio_outcome sio_trace_access(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                  uint64_t *data);
enum sio_outcome sio_trace_string(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                  uint32_t count, uint8_t *string);
void sio_trace_doorbell(struct sio_client *client, uint32_t shard);
/* Lines that the client raises in its VM's controllers, or (`size` 1) a vector that it injects. */
void sio_trace_delivered(struct sio_client *client, uint64_t value, uint32_t size);

/* What they trace (client.c). */
enum sio_outcome sio_client_untraced(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                     uint64_t *data);
enum sio_outcome sio_client_untraced_string(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                            uint32_t count, uint8_t *string);

#endif
