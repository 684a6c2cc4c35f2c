/* A process's private view of one fabric: the counts, checked once, and a pointer to every part. */
#ifndef SHARDIO_FABRIC_H
#define SHARDIO_FABRIC_H

#include "layout.h"
#include "order.h"

struct sio_fabric {
    uint8_t *base;
    uint64_t size;
    uint32_t vcpus;
    uint32_t shards;
    uint32_t ranges;
    uint32_t posted_slots;
    uint32_t posted_shift;         /* log2 of it */
    uint32_t row;                  /* counters from one shard's to the next one's */
    uint32_t in_use_row;           /* words of `in_use` from one row to the next */
    uint64_t ticks_to_ns_32;
    uint32_t membarrier;
    uint32_t polls;                /* pauses between two looks at the clock: pace.h */
    uint32_t rest;                 /* pauses of an owner that has answered, before it looks again */
    uint64_t spin_ticks;           /* of a wait, before it yields */
    uint64_t quick_yield_ticks;    /* a yield that takes longer let somebody else run */
    struct sio_shard_control *shard;
    struct sio_vcpu_control *vcpu;
    struct sio_mailbox *mailboxes;
    struct sio_credit *credits;
    struct sio_posted *posted;
    uint8_t *side;
    struct sio_map *map;
    struct sio_stat *stats;
    struct sio_interrupts *interrupts;
    uint64_t *in_use;
    struct sio_map_entry *wide;
    struct sio_hist *hists;
    struct sio_trace *trace;       /* from here on, nothing is backed before the VMM traces */
    struct sio_trace_ring *trace_rings;
};

/* Bytes of a segment with these counts; 0 when a count is 0, over its limit, or posted_slots no power of two. */
uint64_t sio_fabric_size(uint32_t vcpus, uint32_t shards, uint32_t ranges, uint32_t posted_slots);
/* How many of them must be backed by memory from the start: what lies behind is written rarely, if ever. `*untraced`: how many come
 * before what only tracing needs. */
uint64_t sio_fabric_backed_size(uint32_t vcpus, uint32_t shards, uint32_t ranges, uint32_t posted_slots, uint64_t *untraced);
/* Lays a zeroed mapping of sio_fabric_size bytes out and writes the header. */
int sio_fabric_create(struct sio_fabric *fabric, void *base, uint32_t vcpus, uint32_t shards, uint32_t ranges,
                      uint32_t posted_slots);
/* Views a mapping of `size` bytes that another process laid out. -EPROTO: not a fabric; -EPROTONOSUPPORT: another
 * layout version; -EBADMSG: counts and size do not agree. */
int sio_fabric_attach(struct sio_fabric *fabric, void *base, uint64_t size);
/* The version in a mapping's header, for the message of a peer that refuses it. */
uint32_t sio_fabric_version(const void *base);
/* Registers this process for, and probes, the membarriers that whoever sleeps or changes the map issues; 0 or -errno. */
int sio_membarrier_register(void);
/* Makes every registered process execute a full fence before this returns. 0 or -errno. */
int sio_membarrier(void);

static inline struct sio_mailbox *sio_mailbox(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu)
{
    return &f->mailboxes[(uint64_t)shard * f->vcpus + vcpu];
}

static inline struct sio_credit *sio_credit(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu)
{
    return &f->credits[(uint64_t)shard * f->vcpus + vcpu];
}

static inline struct sio_posted *sio_ring(const struct sio_fabric *f, uint32_t shard, uint32_t vcpu)
{
    return &f->posted[((uint64_t)shard * f->vcpus + vcpu) * f->posted_slots];
}

static inline uint8_t *sio_side(const struct sio_fabric *f, uint32_t vcpu)
{
    return f->side + (uint64_t)vcpu * SIO_SIDE_BYTES;
}

static inline struct sio_stat *sio_stat(const struct sio_fabric *f, uint32_t shard, uint32_t range)
{
    return &f->stats[(uint64_t)shard * f->row + range];
}

static inline struct sio_interrupts *sio_interrupts(const struct sio_fabric *f, uint32_t shard, uint32_t range)
{
    return &f->interrupts[(uint64_t)shard * f->row + range];
}

/* `row`: a vCPU, or vcpus + a shard. Whoever only reads asks sio_hist_in_use first: to read it gives it memory. */
static inline struct sio_hist *sio_hist(const struct sio_fabric *f, uint32_t row, uint32_t range)
{
    return &f->hists[(uint64_t)row * f->ranges + range];
}

static inline int sio_hist_in_use(const struct sio_fabric *f, uint32_t row, uint32_t range)
{
    return sio_load_relaxed(&f->in_use[(uint64_t)row * f->in_use_row + range / 64]) >> (range & 63) & 1;
}

/* The same for the row's writer, about to write it. */
static inline struct sio_hist *sio_hist_to_write(const struct sio_fabric *f, uint32_t row, uint32_t range)
{
    uint64_t *word = &f->in_use[(uint64_t)row * f->in_use_row + range / 64], bit = 1ull << (range & 63);
    if (__builtin_expect(!(*word & bit), 0))
        sio_store_relaxed(word, *word | bit);
    return sio_hist(f, row, range);
}

static inline uint64_t sio_ticks_to_ns(const struct sio_fabric *f, uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * f->ticks_to_ns_32) >> 32);
}

static inline uint64_t sio_ns_to_ticks(const struct sio_fabric *f, uint64_t ns)
{
    return (uint64_t)(((unsigned __int128)ns << 32) / f->ticks_to_ns_32);
}

/* Buckets of a histogram: exact below 4 ns, then four to an octave, the last one open-ended (2^33 ns on). */
static inline uint32_t sio_hist_bucket(uint64_t ns)
{
    if (ns < 4)
        return (uint32_t)ns;
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t bucket = (octave - 1) * 4 + (uint32_t)((ns >> (octave - 2)) & 3);
    return bucket < SIO_HIST_BUCKETS ? bucket : SIO_HIST_BUCKETS - 1;
}

static inline void sio_hist_sample(const struct sio_fabric *f, uint32_t row, uint32_t range, uint64_t ticks)
{
    uint64_t ns = sio_ticks_to_ns(f, ticks);
    struct sio_hist *hist = sio_hist_to_write(f, row, range);
    uint32_t *bucket = &hist->bucket[sio_hist_bucket(ns)];
    sio_store_relaxed(&hist->total_ns, hist->total_ns + ns);
    sio_store_relaxed(&hist->samples, hist->samples + 1);
    sio_store_relaxed(bucket, *bucket + 1);
}

/* Notes an access that nobody answered, in a record that only the caller writes. */
static inline void sio_note_access(struct sio_last_access *last, uint32_t space, uint64_t address, uint32_t size, int write)
{
    sio_store_relaxed(&last->address, address);
    sio_store_relaxed(&last->size, (uint8_t)size);
    sio_store_relaxed(&last->write, (uint8_t)write);
    sio_store_relaxed(&last->space, (uint8_t)space);
    sio_store_relaxed(&last->ticks, sio_ticks());
}

/* One more on a counter that only the caller writes; readers may look at any time. */
#define sio_count(word) sio_store_relaxed(&(word), (word) + 1)

#endif
