/* A client: one vCPU's side of the fabric. Routes an access, sends it posted or through the mailbox, waits for the answer.
 *
 * Lives in the VMM's private memory, so it outlives a worker that is killed. `pending` is its journal: it names the message
 * that is being, or has been, published for the access in hand until the caller says that the access is complete. Whoever runs
 * the same access again (a fresh worker on the same exit) takes the message up where it is instead of sending a second one.
 *
 * Facts. The stores to a ring's lines, which the owner has read, wait some 60 ns each for their line, in order, and all other
 * stores behind them, in a queue of 64 places: a posted write of ten stores took a nanosecond for each of them.
 * Consequence. The journal's word is also the ring's head: a posted write marks it, stores its slot, and counts it up. The
 * other words that posting needs stay as they are for as long as one ring is posted to (struct sio_open_ring).
 */
#ifndef SHARDIO_CLIENT_H
#define SHARDIO_CLIENT_H

#include "fabric.h"
#include "mailbox.h"
#include "first_poll.h"
#include "posted.h"
#include "route.h"
#include "wait.h"
#include "wires.h"

enum sio_outcome { SIO_ANSWERED, SIO_NOT_ANSWERED, SIO_ABORTED };

/* The journal's word: kind in bits 62-63, shard in bits 56-61, below bit 48 a sequence number or a ring position (mod 2^48), bits
 * in between clear, but for a carry out of the position. Kind 0: between two accesses; then the rest is 0, or bit 55 is set and
 * shard and position are those of the ring that is open and of the next write there. */
#define SIO_PENDING_SYNC 1u
#define SIO_PENDING_POSTED 2u
#define SIO_PENDING_NONE 3u  /* inside an access, nothing published yet */
#define SIO_PENDING(kind, shard, n) (((uint64_t)(kind) << 62) | ((uint64_t)(shard) << 56) | ((n) & SIO_PENDING_N))
#define SIO_PENDING_N 0xffffffffffffull
#define SIO_PENDING_OPEN (1ull << 55)

#define SIO_ROUTE_SLOTS 128u
#define SIO_SAMPLE_FIRST 64u /* accesses timed before one in sample_mask + 1 is */

/* A map entry that was hit, with everything that its accesses need: first what a posted write needs. Never hit where
 * base > last. */
struct sio_route {
    uint64_t base;
    uint64_t open;                      /* `pending` where this route's ring is open, at position 0 */
    uint64_t head;                      /* the range, where a posted slot wants it */
    uint32_t shard;
    uint16_t space;
    uint16_t flags;
    uint32_t reach[8];                  /* by size - 1: writes at offsets below it are posted with no more ado; 0: none */
    uint64_t last;
    struct sio_mailbox *box;
    uint64_t command;                   /* range and space, where a mailbox wants them */
    struct sio_client_shard *mine;      /* what the client knows of `shard` */
    struct sio_first_poll first_poll;       /* kept when another entry takes the place */
};

/* Its size, so that finding one is a shift; not its alignment, which those who allocate clients do not give. */
_Static_assert(sizeof(struct sio_route) == 2 * SIO_LINE, "a route is two lines long");

/* The ring that `pending` names while it is open: what a run of posted writes needs, the same for all of them. */
struct sio_open_ring {
    uint64_t limit;                     /* low 48 bits of the position up to which this holds: no room beyond, or another lap */
    uint64_t origin;                    /* address of the slot of position 0 (mod 2^48), were the ring that long */
    uint64_t lap;                       /* in the slots */
    const uint64_t *need_wakeup;               /* its owner's */
};

/* What a client knows of one shard: a line of its own. */
struct sio_client_shard {
    uint64_t seq;                   /* of the last request */
    uint64_t posted;                /* ring position of the next posted write, unless `pending` names it */
    uint64_t credit;                /* the owner's credit, as last looked up */
    uint64_t rung;                  /* the need_wakeup that this client's last ring answered */
    struct sio_mailbox *box;
    struct sio_posted *ring;
    const uint64_t *need_wakeup;           /* its owner's */
    uint64_t pad;
};

struct sio_client {
    struct sio_fabric fabric;
    uint32_t vcpu;
    uint32_t sample_mask;               /* one access in sample_mask + 1 is timed, and each of the first ones */
    int32_t doorbell[SIO_MAX_SHARDS];   /* eventfd of each shard, -1 when it has none */
    uint32_t granted[SIO_MAX_SHARDS];   /* writer: the VMM. Interrupt lines (bit n: GSI n) that a shard may raise with a reply */
    uint8_t near[SIO_MAX_SHARDS];       /* shards, nearest first: who is asked for a replicated device */
    struct sio_waiter waiter;
    const uint32_t *coalesced;          /* `first` and `last` of the VM's coalesced ring (coalesced.h); NULL: no write goes there */
    /* written by every access: a line of its own (`coalesced` is never written then), and one for each shard */
    uint32_t tracing;                   /* writer: the VMM. Non-zero: accesses go by trace.c */
    uint8_t pad0[SIO_LINE - 12];
    uint64_t pending;                   /* journal; its kind is not 0 inside an access: SP-QUIESCE */
    uint64_t resting;                   /* what it was before the access in hand, and is again after it, unless that is posted */
    struct sio_open_ring open;
    uint64_t accesses;
    uint64_t sampling;                  /* sample_mask, 0 in the beginning */
    uint32_t lines;                     /* granted ones that replies brought, for the caller to serve and clear */
    uint32_t target;                    /* the shard that this client waits for, or waited for last */
    uint64_t draw;                      /* decides whether the next access is timed */
    const struct sio_route *last;       /* the one that was posted to last */
    struct sio_map_view map;            /* that `route` was filled from */
    uint8_t pad1[SIO_LINE];
    struct sio_client_shard shard[SIO_MAX_SHARDS];
    struct sio_route route[SIO_ROUTE_SLOTS];
    struct sio_first_poll unknown;        /* of waits that belong to no route: none */
};

void sio_client_init(struct sio_client *client, const struct sio_fabric *fabric, uint32_t vcpu);
/* For a client in memory that several processes share: makes what a predecessor in another process (now dead) left usable here.
 * The journal stays, as do sequence numbers and ring positions; all that points into this process's mapping is set anew. */
void sio_client_attach(struct sio_client *client, const struct sio_fabric *fabric);

/* One access of `size` bytes (1, 2, 4, 8), or a string of `count` of them at `string`. `*data`: the value to write, or
 * where the value read goes: all-ones of the width when nothing answers. The journal stays set: call sio_client_complete. */
enum sio_outcome sio_client_access(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data);
enum sio_outcome sio_client_string(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string);
/* Before a fresh worker's first access: its predecessor may have been killed while it wrote a route down. */
static inline void sio_client_resume(struct sio_client *client) { client->map.generation = ~0ull; }

/* `pending` after the access that it names: a posted write is counted, anything else leaves all as it was. Between two accesses:
 * itself. */
static inline uint64_t sio_client_after(const struct sio_client *client, uint64_t pending)
{
    uint64_t posted = pending >> 63, other = pending >> 62 & 1;
    return other ? client->resting : (pending & ~SIO_PENDING(3, 0, 0)) + posted;
}

/* The access is complete: its result is where it belongs. Harmless where it was complete already. */
static inline void sio_client_complete(struct sio_client *client)
{
    sio_store_release(&client->pending, sio_client_after(client, client->pending)); /* SP-QUIESCE */
}

/* For whoever watches: what names the access in hand, 0 between two; and how many writes were posted to a shard, ever, the one
 * in hand included, which its owner may have taken already. */
uint64_t sio_client_pending(const struct sio_client *client);
uint64_t sio_client_posted(const struct sio_client *client, uint32_t shard);

/* For callers without a vCPU (benchmarks, tests, other VMMs): access and complete in one. */
int sio_client_read(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t *data);
int sio_client_write(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t data);

#endif
