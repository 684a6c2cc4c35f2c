/* What is in shared memory, and who writes it.
 *
 * One segment per fabric, all offsets derived from five counts that a peer reads once and checks (fabric.c).
 * Contents are hostile to every reader: indices are loaded once and checked, slots are copied once and the copy is
 * checked, no size or mask is read back. Every word has one writer, named on the right; the mailbox line has one at a
 * time, handed over by its state word. Nothing here is a lock.
 *
 *   header | shard control [shards] | vcpu control [vcpus] | mailbox [shards][vcpus] | credit [shards][vcpus]
 *   | posted slots [shards][vcpus][posted_slots] | side page [vcpus] | address map [2] | stats [shards][ranges, made even]
 *   | interrupts, alike | which histograms are in use [vcpus + shards][ranges]
 *   and, from a page's start on, without memory of its own until it is first written:
 *   wide map entries [2][ranges] | histograms [vcpus + shards][ranges] | what is traced | trace rings [vcpus + shards]
 *
 * Of the last two, from a page's beginning on, nothing is in memory before the VMM traces (trace.h).
 */
#ifndef SHARDIO_LAYOUT_H
#define SHARDIO_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus /* a client's sources compile as C++ too (shardio/include) */
#define _Static_assert static_assert
#endif

#define SIO_MAGIC 0x314f494452414853ull /* "SHARDIO1" */
#define SIO_LAYOUT_VERSION 8u
#define SIO_LINE 64u
#define SIO_PAGE 4096u
#define SIO_MAX_SHARDS 64u
#define SIO_MAX_VCPUS 1024u
#define SIO_MAX_RANGES 65536u
#define SIO_MAX_POSTED 65536u
#define SIO_POSTED_OFFSET (1u << 30) /* writes at and beyond this offset in their range are never posted */
#define SIO_SIDE_BYTES 4096u
#define SIO_HIST_BUCKETS 128u
#ifndef SIO_TRACE_SLOTS
#define SIO_TRACE_SLOTS 8192u /* records of a trace ring, a power of two; tests of the core have fewer */
#endif

#define SIO_ALIGNED __attribute__((aligned(64)))

/* mailbox.state: sequence number above, one of these in the low two bits. */
#define SIO_IDLE 0u
#define SIO_REQUEST 1u
#define SIO_DONE 2u    /* answered; for a read, data is the value */
#define SIO_REFUSED 3u /* not answered: the guest reads all-ones, the write is dropped */
#define SIO_STATE(seq, phase) (((uint64_t)(seq) << 2) | (phase))

/* mailbox.op */
#define SIO_WRITE 1u   /* else a read */
#define SIO_STRING 2u  /* data in the side page, `count` elements of `size` bytes */
#define SIO_SAMPLE 4u  /* the client times this access: the owner times its service */

/* address spaces */
#define SIO_PIO 0u
#define SIO_MMIO 1u

/* map entry flags */
#define SIO_RANGE_POSTED 1u
#define SIO_RANGE_QUARANTINED 2u
#define SIO_PLACE_WIDE 0x80u    /* in a place: beyond 4 GiB, or answered by several shards */

struct sio_header {                /* writer: the creator, before any peer attaches */
    uint64_t magic;
    uint32_t layout_version;
    uint32_t header_size;
    uint64_t total_size;           /* bytes up to the end of the last part */
    uint32_t vcpus;
    uint32_t shards;
    uint32_t ranges;               /* capacity: range indices are below it */
    uint32_t posted_slots;         /* per ring, a power of two */
    uint64_t ticks_to_ns_32;       /* nanoseconds = ticks * this >> 32 */
    uint32_t membarrier;           /* who sleeps or changes the map fences the others (membarrier), so that accesses need not: all
                                    * ends, or none */
    uint32_t pause_ticks;          /* of SIO_PACE_PAUSES pauses, and */
    uint32_t yield_ticks;          /* of a yield, on this host: pace.h */
} SIO_ALIGNED;

struct sio_shard_control {
    /* writer: the owner */
    uint64_t need_wakeup;                 /* odd while the owner sleeps in epoll: ring its doorbell */
    uint64_t coalesced;            /* 1: it has writes in KVM's coalesced ring too, and posted ones keep their order with them */
    uint64_t element;              /* journal: how many elements of the string in hand are done, their answers in place */
    uint8_t pad0[SIO_LINE - 24];
    uint64_t taken;                /* journal: vcpu << 48 | low 48 bits of the sequence number of the request taken last */
    uint64_t progress;             /* synchronous requests taken since the segment was made */
    uint64_t sleeps;
    uint64_t yields;
    uint64_t lost_wakeups;         /* work found by the time-out that no doorbell had announced */
    uint64_t malformed;              /* requests refused because the line made no sense */
    uint64_t epoch;                /* of the owner that serves now, copied from `owner_epoch` when it starts */
    uint64_t levels;               /* wired lines that this shard's devices hold high: SIO_LINE_* of wires.h. Of a dead owner: the VMM */
    /* writer: the VMM */
    uint64_t owner_epoch;
    uint32_t traced;               /* non-zero: write trace records */
    uint32_t pad1;
    uint64_t interrupted;          /* what the last dead owner's journal named: `element` is that request's */
    uint8_t pad2[SIO_LINE - 24];
} SIO_ALIGNED;

struct sio_last_access {           /* the last of some accesses, for the log; a reader may find words of two of them */
    uint64_t ticks;                /* when it was; 0: there was none */
    uint64_t address;              /* guest-physical address or port */
    uint8_t size;                  /* bytes; of a string, each element's */
    uint8_t write;
    uint8_t space;
    uint8_t pad[5];
};

struct sio_vcpu_control {
    uint32_t need_wakeup;                 /* futex: 1 set by the client that sleeps, 0 by whoever wakes it */
    uint8_t pad0[4];
    struct sio_last_access unclaimed;     /* writer: the client; what nothing claimed */
    struct sio_last_access crossed;       /* what ran past its range's end */
    uint8_t pad1[8];
    /* writer: the client */
    uint64_t unclaimed_reads;
    uint64_t unclaimed_writes;
    uint64_t crossing;             /* accesses that ran past their range's end */
    uint64_t sleeps;
    uint64_t yields;
    uint64_t lost_wakeups;         /* replies found by the time-out that no wake had announced */
    uint64_t doorbells;
    uint64_t malformed;              /* replies or credits that made no sense */
} SIO_ALIGNED;

struct sio_mailbox {               /* writer: the client while IDLE, DONE or REFUSED; the owner while REQUEST */
    uint64_t state;
    uint64_t address;              /* guest-physical address or port */
    uint64_t data;
    uint64_t posted_upto;          /* serve this many posted writes of this vCPU first */
    union {
        uint64_t command;          /* the five below in one store */
        struct {
            uint16_t range;
            uint16_t count;        /* elements of a string */
            uint8_t op;
            uint8_t size;          /* bytes: 1, 2, 4, 8 */
            uint8_t space;
        };
    };
    uint64_t lines;                /* what becomes of interrupt lines before the guest goes on: SIO_LINE_* of wires.h */
    uint64_t rung;                 /* writer: the client, at any time; the owner's need_wakeup for which it rang the doorbell last */
    uint8_t pad[8];
} SIO_ALIGNED;

struct sio_credit {                /* writer: the owner */
    uint64_t credit;               /* slots before this position may be reused: told lazily, the client reads it when it must */
    uint8_t pad0[SIO_LINE - 8];
    uint64_t taken;                /* journal: posted writes taken from this ring, ever; in a line that no client reads */
    uint8_t pad1[SIO_LINE - 8];
} SIO_ALIGNED;

struct sio_posted {                /* writer: the client */
    union {
        uint64_t head;             /* the four below in one store */
        struct {
            uint16_t lap;          /* 1 + position / posted_slots (mod 2^16) when the slot holds that position */
            uint16_t range;
            uint32_t where;        /* offset from the range's base << 2 | log2 of the size in bytes */
        };
    };
    uint64_t data;
};

/* What of a range is in its place in the map: 16 bytes, so that the map of 10,000 ranges leaves room in a small second-level cache. */
struct sio_map_place {             /* writer: the VMM */
    uint64_t base;
    uint64_t rest;                 /* size - 1 | range << 32 | shard << 48 | flags << 56 (SIO_RANGE_*). With SIO_PLACE_WIDE, size and
                                    * shards are those of the wide entry with the same number */
};

struct sio_map_entry {             /* a range in full. Wide ones in the segment: writer the VMM */
    uint64_t base;
    uint64_t last;                 /* inclusive */
    uint64_t shards;               /* bit s: shard s may answer; one bit unless the device is replicated */
    uint32_t range;
    uint32_t flags;
};

struct sio_map_side {              /* followed by `ranges` places, PIO ones first, each kind sorted by base */
    uint32_t count[2];             /* by space */
    uint64_t scale[2];             /* entries per address * 2^64: where in its kind an address should be */
    uint8_t pad[SIO_LINE - 24];
} SIO_ALIGNED;

struct sio_map {                   /* followed by two sides */
    uint64_t generation;           /* the live side is generation & 1 */
    uint8_t pad[SIO_LINE - 8];
} SIO_ALIGNED;

struct sio_stat {                  /* [shard][range]: writer the owner. Two a line: what every access touches */
    uint64_t reads;
    uint64_t writes;
    uint64_t posted;
    uint64_t refused;
};

struct sio_interrupts {            /* [shard][range]: a device's, at its first range; writer: its owner */
    uint64_t raised;
    uint64_t dropped;              /* triggers that raised none of their own */
};

struct sio_hist {                  /* row [vcpu]: writer the client; [vcpus + shard]: writer the owner. What only some accesses touch */
    uint64_t strings;
    uint64_t samples;              /* accesses that were timed: a client times waits, an owner service */
    uint64_t total_ns;             /* over the samples */
    uint64_t refused;              /* of a client: accesses that nobody answered; an owner counts them in its sio_stat */
    struct sio_last_access last_refused;
    uint8_t pad[8];
    uint32_t bucket[SIO_HIST_BUCKETS];
} SIO_ALIGNED;

struct sio_trace {                 /* writer: the VMM */
    uint64_t wanted[SIO_MAX_RANGES / 64 + 1]; /* bit n: range n is traced; behind them all, what belongs to none */
} SIO_ALIGNED;

struct sio_trace_record {          /* writers: the client, or the owner's threads */
    uint64_t stamp;                /* 1 + the record's position in the ring; 0 while it is being written */
    uint64_t begin;                /* ticks */
    uint64_t end;
    uint64_t address;              /* guest-physical address or port; of an interrupt: its GSI */
    uint64_t value;                /* of a string: 0 */
    uint64_t message;              /* the request's sequence number, or the position in the posted ring, mod 2^48 */
    uint32_t range;                /* SIO_MAX_RANGES: of none */
    uint16_t vcpu;
    uint16_t shard;
    uint16_t count;                /* elements of a string */
    uint8_t kind;                  /* enum sio_trace_kind */
    uint8_t size;
    uint8_t flags;                 /* SIO_TRACE_* */
    uint8_t outcome;               /* enum sio_trace_outcome */
    uint8_t pad[2];
} SIO_ALIGNED;

struct sio_trace_ring {            /* [vcpu]: writer the client; [vcpus + shard]: writers the owner's threads */
    uint64_t head;                 /* position of the next record */
    uint8_t pad[SIO_LINE - 8];
    struct sio_trace_record slot[SIO_TRACE_SLOTS];
} SIO_ALIGNED;

_Static_assert(sizeof(struct sio_trace_record) == SIO_LINE, "a trace record is one line");
_Static_assert((SIO_TRACE_SLOTS & (SIO_TRACE_SLOTS - 1)) == 0, "positions in a trace ring are taken modulo its length");
_Static_assert(sizeof(struct sio_header) == SIO_LINE, "the header is one line");
_Static_assert(sizeof(struct sio_shard_control) == 3 * SIO_LINE, "owner's need_wakeup, owner's journal, VMM");
_Static_assert(offsetof(struct sio_shard_control, taken) == SIO_LINE, "the journal has a line of its own");
_Static_assert(offsetof(struct sio_shard_control, owner_epoch) == 2 * SIO_LINE, "the VMM's line is apart");
_Static_assert(sizeof(struct sio_vcpu_control) == 2 * SIO_LINE, "futex line, counters line");
_Static_assert(sizeof(struct sio_mailbox) == SIO_LINE, "request and reply share one line");
_Static_assert(sizeof(struct sio_credit) == 2 * SIO_LINE, "credits do not share a line with slots");
_Static_assert(offsetof(struct sio_credit, taken) == SIO_LINE, "the journal's line stays with the owner");
_Static_assert(sizeof(struct sio_posted) == 16, "four posted slots a line");
_Static_assert(offsetof(struct sio_posted, data) == 8, "a posted slot's head is one word");
_Static_assert(offsetof(struct sio_mailbox, lines) == 40, "a mailbox's command is one word");
_Static_assert(SIO_MAX_RANGES - 1 <= UINT16_MAX && SIO_SIDE_BYTES <= UINT16_MAX, "ranges and counts have 16 bits");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "commands and heads are put together for little-endian");
_Static_assert(sizeof(struct sio_map_place) == 16, "four places of the map a line");
_Static_assert(sizeof(struct sio_stat) == SIO_LINE / 2, "the counters of two ranges share a line");
_Static_assert(sizeof(struct sio_hist) == 9 * SIO_LINE, "histograms of two ranges never share a line");

#endif
