/* An owner: a shard's side of the fabric. Finds requests, checks them, calls handlers, replies, and knows when to sleep.
 *
 * Nothing here knows Python: `python` calls a Python handler (pydispatch.c) and `pause` gives its interpreter up before a
 * yield or a sleep. One owner serves a shard at a time; its successor starts only after it is dead and reaped.
 */
#ifndef SHARDIO_OWNER_H
#define SHARDIO_OWNER_H

#include "fabric.h"
#include "mailbox.h"
#include "poll_budget.h"
#include "posted.h"
#include "wait.h"

#define SIO_POSTED_SAMPLE 64u  /* one in this many posted writes is timed and returns credit; a range's first ones are timed all */
#define SIO_POSTED_BATCH 256u  /* posted writes of one ring served before the next line is looked at */
#define SIO_CALLS_PER_LOOK 8u  /* calls of Python between two looks at the clock */
#define SIO_RUN_PER_LOOK 32u   /* native calls of a run between two looks at the clock */
#define SIO_SWEEP 8u           /* rings looked at per sweep, in turn */
#define SIO_SWEEP_EVERY 16u    /* looks at the mailboxes per sweep: a consumer at the producer's heels doubles the transfers */

/* A device's handler in C. `*value`: the value written, or where the value read goes. Non-zero: failed. */
typedef int (*sio_native_handler)(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value);

enum sio_handler_kind { SIO_NO_HANDLER, SIO_NATIVE, SIO_PYTHON };

/* How a Python handler is called: with (offset, size[, value]), or as a memoryview handler with (base, offset, data). */
#define SIO_READ_VIEW 1u
#define SIO_WRITE_VIEW 2u

struct sio_handler {
    uint32_t kind;
    uint16_t space;
    uint16_t forms;            /* SIO_READ_VIEW, SIO_WRITE_VIEW */
    uint64_t base;
    uint64_t last;
    union {
        struct {
            sio_native_handler native;
            void *context;
        };
        struct {
            void *read;        /* Python callables, borrowed: the shard's table keeps them */
            void *write;
        };
    };
    void *base_object;         /* PioAddress or MmioAddress for the memoryview form */
} SIO_ALIGNED;

enum sio_event { SIO_EVENT_DOORBELL = 1, SIO_EVENT_BELL = 2, SIO_EVENT_OTHER = 4 };
enum sio_turn { SIO_TURN_HOT, SIO_TURN_EVENTS, SIO_TURN_ASLEEP };

struct sio_bell;
struct sio_coalesced;
struct epoll_event;

struct sio_owner {
    struct sio_fabric fabric;
    uint32_t shard;
    uint32_t sweep;
    uint32_t looks;
    uint32_t idle_next;                /* the mailbox of an idle vCPU that is looked at next */
    uint32_t until_idle;               /* looks until `busy` is what was asked since the last time */
    uint32_t answered;                 /* the vCPU whose request was answered last */
    uint64_t busy[SIO_MAX_VCPUS / 64]; /* vCPUs, by bit, that asked lately: their mailboxes are looked at each time */
    uint64_t asked[SIO_MAX_VCPUS / 64];
    uint32_t posted_ranges;            /* handlers that may be posted to: 0 saves the look at the rings */
    uint32_t membarrier;
    struct sio_poll_budget poll_budget;
    uint64_t yield_ticks;
    uint64_t epoll_ticks;              /* how often a busy owner looks whether host I/O is ready */
    uint64_t turn_end;                 /* ticks: when the turn in hand should be over */
    uint64_t crowded;                  /* other programs wanted the CPU: ticks until when it lets nobody run in vain; 0: none did */
    uint64_t served;                   /* posted and synchronous, this owner's */
    uint64_t failed;
    uint32_t called;                   /* calls of Python since the last look at the clock */
    uint64_t thread;                   /* pthread_self() of whoever turns */
    uint64_t serving;                  /* the thread inside a synchronous access, 0: none is */
    uint32_t lines;                    /* interrupt lines raised during that access: its reply carries them */
    int doorbell;                      /* eventfd, -1: none */
    struct sio_shard_control *control; /* this shard's words in the segment */
    struct sio_mailbox *boxes;         /* [vcpus] */
    struct sio_handler *handlers;      /* [ranges] */
    uint64_t *posted;                  /* [vcpus]: next position of each ring */
    int (*python)(struct sio_owner *owner, const struct sio_handler *handler, uint64_t offset, uint32_t size, uint32_t write,
                  uint64_t *value);   /* as a native one */
    void (*pause)(struct sio_owner *owner);
    uint32_t (*drain_coalesced)(struct sio_owner *owner); /* coalesced.c; NULL: no ring */
    struct sio_coalesced *coalesced;
    void *runtime;                     /* pydispatch.c's */
    int (*deliver)(struct sio_owner *owner, const struct epoll_event *event); /* bells.c; NULL: there are no doorbells of devices */
    struct sio_bell *bells;            /* [bell_count] */
    uint32_t bell_count;
    struct sio_owner *next_kept;       /* forked.c's */
};

/* 0 or -ENOMEM, -EINVAL (no such shard). `doorbell`: a non-blocking eventfd, or -1. */
int sio_owner_init(struct sio_owner *owner, const struct sio_fabric *fabric, uint32_t shard, int doorbell);
void sio_owner_free(struct sio_owner *owner);
/* Serves everything that is there now, once. Returns how many requests and posted writes that were. */
uint32_t sio_owner_scan(struct sio_owner *owner);
/* Serves until `turn_ns` have passed (HOT), host I/O is ready on `epoll_fd` (EVENTS; -1: never looks), or there has been
 * nothing to do for so long that the owner announced sleep (ASLEEP: wait for the doorbell, then call again). */
enum sio_turn sio_owner_turn(struct sio_owner *owner, uint64_t turn_ns, int epoll_fd);
/* What is ready on `epoll_fd` within `timeout_ms` (-1: for ever). Doorbells of devices are delivered, the owner's own is emptied unless
 * it announced sleep. Returns SIO_EVENT_* bits. */
int sio_owner_events(struct sio_owner *owner, int epoll_fd, int timeout_ms);
/* Whether a yield, at this tick, would let another program run. */
static inline int sio_owner_crowded(const struct sio_owner *owner, uint64_t now)
{
    return owner->crowded && (int64_t)(owner->crowded - now) > 0;
}
/* Raises interrupt line `gsi` (below 32) with the reply of the access in hand. Zero where there is none: outside an access, in
 * a posted write, in another thread than the one that serves. */
/* The vCPU of the access in hand is not to go on before the VMM has said what becomes of the machine. 0 outside an access. */
int sio_owner_hold(struct sio_owner *owner);
int sio_owner_raise(struct sio_owner *owner, uint32_t gsi);
/* Makes wired line `bit` (a GSI, or that of SIO_LINE_EXTINT) high or low. Non-zero: the reply of the access in hand says so. */
int sio_owner_set_level(struct sio_owner *owner, uint32_t bit, int high);
/* One posted write, from wherever it came: to its handler, if it has one and lies inside. */
void sio_owner_apply(struct sio_owner *owner, const struct sio_posted_write *write);
/* Drains every posted ring to where it ends now: before a device goes. */
void sio_owner_flush(struct sio_owner *owner);

#endif
