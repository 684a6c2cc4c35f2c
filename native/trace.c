/* Writes and collects trace records, and traces a client's accesses. */
#include "trace.h"

#include "doorbell.h"

#define WORDS (sizeof(struct sio_trace_record) / 8)
/* Lines of a ring are touched once a lap, and the publication of the next request waits until they are there: fetched so many
 * records before. */
#define AHEAD 4u

_Static_assert(offsetof(struct sio_trace_record, stamp) == 0, "the stamp is the first word");
_Static_assert(sizeof(struct sio_trace_words) == 8 * (WORDS - 1), "the others follow it");
_Static_assert(offsetof(struct sio_trace_record, range) == 48 && offsetof(struct sio_trace_record, vcpu) == 52 &&
               offsetof(struct sio_trace_record, shard) == 54, "who is one word");
_Static_assert(offsetof(struct sio_trace_record, count) == 56 && offsetof(struct sio_trace_record, kind) == 58 &&
               offsetof(struct sio_trace_record, size) == 59 && offsetof(struct sio_trace_record, flags) == 60 &&
               offsetof(struct sio_trace_record, outcome) == 61, "what is one word");

static ALWAYS_INLINE void put_at(struct sio_trace_ring *ring, uint64_t position, const struct sio_trace_words *words)
{
    uint64_t *slot = (uint64_t *)&ring->slot[position & (SIO_TRACE_SLOTS - 1)];

    sio_store_relaxed(&slot[0], 0);
    sio_fence_release(); /* SP-TRACE: whoever sees a word of the new record sees that the old stamp is gone */
    sio_store_relaxed(&slot[1], words->begin);
    sio_store_relaxed(&slot[2], words->end);
    sio_store_relaxed(&slot[3], words->address);
    sio_store_relaxed(&slot[4], words->value);
    sio_store_relaxed(&slot[5], words->message);
    sio_store_relaxed(&slot[6], words->who);
    sio_store_relaxed(&slot[7], words->what);
    sio_store_release(&slot[0], position + 1); /* SP-TRACE */
    __builtin_prefetch(&ring->slot[(position + AHEAD) & (SIO_TRACE_SLOTS - 1)], 1);
}

void sio_trace_put(struct sio_trace_ring *ring, const struct sio_trace_words *words)
{
    put_at(ring, sio_take_number(&ring->head), words);
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

/* Its ring has one writer. */
static ALWAYS_INLINE void add_record(struct sio_client *c, const struct sio_trace_words *words)
{
    struct sio_trace_ring *ring = sio_trace_ring(&c->fabric, c->vcpu);
    uint64_t position = ring->head;
    sio_store_release(&ring->head, position + 1);
    put_at(ring, position, words);
}

/* How often this client has met each reason not to send an access. */
struct reasons {
    uint64_t unclaimed, crossing;
};

static ALWAYS_INLINE struct reasons reasons_of(struct sio_client *c)
{
    const struct sio_vcpu_control *me = self(c);
    return (struct reasons){me->unclaimed_reads + me->unclaimed_writes, me->crossing};
}

/* Of an access that was sent to nobody. */
static uint32_t unsent(struct sio_client *c, struct reasons before)
{
    struct reasons now = reasons_of(c);
    if (now.crossing != before.crossing)
        return SIO_TRACE_CROSSING;
    return now.unclaimed != before.unclaimed ? SIO_TRACE_UNCLAIMED : SIO_TRACE_QUARANTINED;
}

/* Records an access that has ended with `outcome`. Where it went is told by the journal. `value`: what was written or read. */
static ALWAYS_INLINE void add_access(struct sio_client *c, uint64_t begin, uint64_t address, uint64_t value, uint32_t size,
                                     uint32_t flags, uint32_t count, enum sio_outcome outcome, struct reasons before)
{
    uint64_t pending = c->pending, n = pending & SIO_PENDING_N;
    uint32_t kind = (uint32_t)(pending >> 62), shard = (uint32_t)(pending >> 56) & 63, range = SIO_MAX_RANGES;
    uint32_t ended = outcome == SIO_ANSWERED ? SIO_TRACE_ANSWERED : outcome == SIO_ABORTED ? SIO_TRACE_ABORTED : SIO_TRACE_REFUSED;

    if (likely(kind == SIO_PENDING_SYNC)) {
        range = sio_command_range(sio_load_relaxed(&c->shard[shard].box->command));
    } else if (kind == SIO_PENDING_POSTED) {
        flags |= SIO_TRACE_POSTED;
        range = (uint16_t)(sio_load_relaxed(&sio_posted_slot(&c->fabric, c->shard[shard].ring, n)->head) >> 16);
    } else {
        shard = 0;
        n = 0;
        if (outcome == SIO_NOT_ANSWERED)
            ended = unsent(c, before);
    }
    if (!sio_trace_wants(&c->fabric, range))
        return;
    struct sio_trace_words words = {.begin = begin, .end = sio_ticks(), .address = address, .value = value, .message = n,
                                    .who = sio_trace_who(range, c->vcpu, shard),
                                    .what = sio_trace_what(SIO_TRACE_ACCESS, size, flags, ended, count)};
    add_record(c, &words);
}

static inline uint32_t access_flags(uint32_t space, int write)
{
    return (write ? SIO_TRACE_WRITE : 0) | (space == SIO_MMIO ? SIO_TRACE_MMIO : 0);
}

enum sio_outcome sio_trace_access(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write, uint64_t *data)
{
    struct reasons before = reasons_of(c);
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = sio_client_untraced(c, space, address, size, write, data);
    add_access(c, begin, address, *data & sio_width_mask[size], size, access_flags(space, write), 0, outcome, before);
    return outcome;
}

enum sio_outcome sio_trace_string(struct sio_client *c, uint32_t space, uint64_t address, uint32_t size, int write, uint32_t count,
                                  uint8_t *string)
{
    struct reasons before = reasons_of(c);
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = sio_client_untraced_string(c, space, address, size, write, count, string);
    add_access(c, begin, address, 0, size, access_flags(space, write) | SIO_TRACE_STRING, count, outcome, before);
    return outcome;
}

static void add_moment(struct sio_client *c, uint32_t kind, uint32_t shard, uint64_t value, uint32_t size)
{
    uint64_t now = sio_ticks();
    struct sio_trace_words words = {.begin = now, .end = now, .value = value,
                                    .who = sio_trace_who(SIO_MAX_RANGES, c->vcpu, shard),
                                    .what = sio_trace_what(kind, size, 0, 0, 0)};
    add_record(c, &words);
}

void sio_trace_doorbell(struct sio_client *c, uint32_t shard) { add_moment(c, SIO_TRACE_DOORBELL, shard, 0, 0); }

void sio_trace_delivered(struct sio_client *c, uint64_t value, uint32_t size)
{
    add_moment(c, SIO_TRACE_DELIVERED, 0, value, size);
}
