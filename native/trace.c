/* Writes and collects trace records, and traces a client's accesses. */
#include "trace.h"

#include "doorbell.h"

#define WORDS (sizeof(struct sio_trace_record) / 8)

_Static_assert(offsetof(struct sio_trace_record, stamp) == 0, "the stamp is the first word");

void sio_trace_put(struct sio_trace_ring *ring, const struct sio_trace_record *record)
{
    uint64_t position = sio_take_number(&ring->head);
    uint64_t *slot = (uint64_t *)&ring->slot[position & (SIO_TRACE_SLOTS - 1)];
    const uint64_t *words = (const uint64_t *)record;

    sio_store_relaxed(&slot[0], 0);
    sio_fence_release(); /* SP-TRACE: whoever sees a word of the new record sees that the old stamp is gone */
    for (uint32_t i = 1; i < WORDS; i++)
        sio_store_relaxed(&slot[i], words[i]);
    sio_store_release(&slot[0], position + 1); /* SP-TRACE */
}

/* Non-zero: it was whole all the while. */
static int copy_slot(const struct sio_trace_record *from, struct sio_trace_record *to, uint64_t stamp)
{
    const uint64_t *words = (const uint64_t *)from;
    uint64_t *copy = (uint64_t *)to;
    copy[0] = stamp;
    for (uint32_t i = 1; i < WORDS; i++)
        copy[i] = sio_load_relaxed(&words[i]);
    sio_fence_acquire();
    return sio_load_relaxed(&words[0]) == stamp;
}

uint64_t sio_trace_collect(const struct sio_trace_ring *ring, uint64_t *tail, uint64_t *unfinished, struct sio_trace_record *out,
                           uint64_t room, uint64_t *lost)
{
    uint64_t head = sio_load_acquire(&ring->head), n = 0;

    if ((int64_t)(head - *tail) < 0) { /* a liar's: begin anew where it claims to be */
        *tail = head;
        ++*lost;
    }
    if (head - *tail > SIO_TRACE_SLOTS) {
        *lost += head - SIO_TRACE_SLOTS - *tail;
        *tail = head - SIO_TRACE_SLOTS;
    }
    for (; *tail != head && n < room; ++*tail) {
        const struct sio_trace_record *slot = &ring->slot[*tail & (SIO_TRACE_SLOTS - 1)];
        uint64_t stamp = sio_load_acquire(&slot->stamp), wanted = *tail + 1; /* SP-TRACE */
        if (stamp == wanted && copy_slot(slot, &out[n], wanted))
            n++;
        else if (stamp < wanted && *unfinished != wanted) { /* its writer is at it, or dead: the next call will know */
            *unfinished = wanted;
            break;
        } else
            ++*lost;
    }
    return n;
}

/* ---- a client's -------------------------------------------------------------------------------------------------------- */

static void add_record(struct sio_client *c, struct sio_trace_record *r, uint64_t begin)
{
    r->begin = begin;
    r->end = sio_ticks();
    r->vcpu = (uint16_t)c->vcpu;
    sio_trace_put(sio_trace_ring(&c->fabric, c->vcpu), r);
}

static struct sio_trace_record record_of(uint32_t kind)
{
    return (struct sio_trace_record){.range = SIO_MAX_RANGES, .kind = (uint8_t)kind};
}

/* How often this client has met each reason not to send an access. */
struct reasons {
    uint64_t unclaimed, crossing;
};

static struct reasons reasons_of(struct sio_client *c)
{
    const struct sio_vcpu_control *me = self(c);
    return (struct reasons){me->unclaimed_reads + me->unclaimed_writes, me->crossing};
}

/* Of an access that was sent to nobody. */
static uint32_t unsent(struct sio_client *c, const struct reasons *before)
{
    struct reasons now = reasons_of(c);
    if (now.crossing != before->crossing)
        return SIO_TRACE_CROSSING;
    return now.unclaimed != before->unclaimed ? SIO_TRACE_UNCLAIMED : SIO_TRACE_QUARANTINED;
}

/* Where the access in hand went, by the journal. */
static void describe(struct sio_client *c, struct sio_trace_record *r, enum sio_outcome outcome, const struct reasons *before)
{
    uint64_t pending = c->pending, n = pending & SIO_PENDING_N;
    uint32_t kind = (uint32_t)(pending >> 62), shard = (uint32_t)(pending >> 56) & 63;
    const struct sio_client_shard *to = &c->shard[shard];

    r->outcome = outcome == SIO_ANSWERED ? SIO_TRACE_ANSWERED : outcome == SIO_ABORTED ? SIO_TRACE_ABORTED : SIO_TRACE_REFUSED;
    if (kind == SIO_PENDING_SYNC) {
        r->range = sio_command_range(sio_load_relaxed(&to->box->command));
    } else if (kind == SIO_PENDING_POSTED) {
        r->flags |= SIO_TRACE_POSTED;
        r->range = (uint16_t)(sio_load_relaxed(&sio_posted_slot(&c->fabric, to->ring, n)->head) >> 16);
    } else {
        if (outcome == SIO_NOT_ANSWERED)
            r->outcome = (uint8_t)unsent(c, before);
        return;
    }
    r->shard = (uint16_t)shard;
    r->message = n;
}

static void put_access(struct sio_client *c, struct sio_trace_record *r, enum sio_outcome outcome, uint64_t begin,
                       const struct reasons *before)
{
    describe(c, r, outcome, before);
    if (sio_trace_wants(&c->fabric, r->range))
        add_record(c, r, begin);
}

static struct sio_trace_record access_record(uint32_t space, uint64_t address, uint32_t size, int write)
{
    struct sio_trace_record r = record_of(SIO_TRACE_ACCESS);
    r.address = address;
    r.size = (uint8_t)size;
    r.flags = (uint8_t)((write ? SIO_TRACE_WRITE : 0) | (space == SIO_MMIO ? SIO_TRACE_MMIO : 0));
    return r;
}

enum sio_outcome sio_trace_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write, uint64_t *data)
{
    struct sio_trace_record r = access_record(space, address, size, write);
    struct reasons before = reasons_of(c);
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = sio_client_untraced(c, space, address, size, write, data);
    r.value = *data & sio_width_mask[size];
    put_access(c, &r, outcome, begin, &before);
    return outcome;
}

enum sio_outcome sio_trace_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write, uint32_t count,
                                  uint8_t *string)
{
    struct sio_trace_record r = access_record(space, address, size, write);
    struct reasons before = reasons_of(c);
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = sio_client_untraced_string(c, space, address, size, write, count, string);
    r.flags |= SIO_TRACE_STRING;
    r.count = (uint16_t)count;
    put_access(c, &r, outcome, begin, &before);
    return outcome;
}

void sio_trace_doorbell(struct sio_client *c, uint32_t shard)
{
    struct sio_trace_record r = record_of(SIO_TRACE_DOORBELL);
    r.shard = (uint16_t)shard;
    add_record(c, &r, sio_ticks());
}

void sio_trace_delivered(struct sio_client *c, uint64_t value, uint32_t size)
{
    struct sio_trace_record r = record_of(SIO_TRACE_DELIVERED);
    r.value = value;
    r.size = (uint8_t)size;
    add_record(c, &r, sio_ticks());
}
