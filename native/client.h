/* A client: one vCPU's side of the fabric. Routes an access, sends it posted or through the mailbox, waits for the answer.
 *
 * Lives in the VMM's private memory, so it outlives a worker that is killed. `pending` is its journal: it names the
 * message that is being, or has been, published for the access in hand, and is cleared only when the caller says that the
 * access is complete. Whoever runs the same access again (a fresh worker on the same exit) takes the message up where it
 * is instead of sending a second one.
 */
#ifndef SHARDIO_CLIENT_H
#define SHARDIO_CLIENT_H

#include "fabric.h"
#include "mailbox.h"
#include "patience.h"
#include "posted.h"
#include "route.h"
#include "wait.h"

enum sio_outcome { SIO_ANSWERED, SIO_NOT_ANSWERED, SIO_ABORTED };

#define SIO_PENDING_SYNC 1u
#define SIO_PENDING_POSTED 2u
#define SIO_PENDING_NONE 3u  /* inside an access, nothing published yet */
/* kind in bits 62-63, shard in bits 56-61, bits 48-55 clear, sequence number or ring position below */
#define SIO_PENDING(kind, shard, n) (((uint64_t)(kind) << 62) | ((uint64_t)(shard) << 56) | ((n) & SIO_PENDING_N))
#define SIO_PENDING_N 0xffffffffffffull

#define SIO_ROUTE_SLOTS 128u
#define SIO_SAMPLE_FIRST 64u /* accesses timed before one in sample_mask + 1 is */

/* A map entry that was hit, with everything that its accesses need. Never hit where base > last. */
struct sio_route {
    uint64_t base;
    uint64_t last;
    struct sio_mailbox *box;
    struct sio_posted *ring;
    struct sio_stat *stat;
    uint64_t command;                   /* range and space, where a mailbox wants them */
    uint32_t range;
    uint32_t flags;
    uint32_t shard;
    uint32_t posts;                     /* a write may be posted, none of the exceptions holds */
    struct sio_patience patience;       /* kept when another entry takes the place */
    uint8_t pad[32];
};

/* Its size, so that finding one is a shift; not its alignment, which those who allocate clients do not give. */
_Static_assert(sizeof(struct sio_route) == 2 * SIO_LINE, "a route is two lines long");

struct sio_client {
    struct sio_fabric fabric;
    uint32_t vcpu;
    uint32_t sample_mask;               /* time the accesses whose number & mask is 0, and the first ones */
    int32_t doorbell[SIO_MAX_SHARDS];   /* eventfd of each shard, -1 when it has none */
    uint32_t granted[SIO_MAX_SHARDS];   /* writer: the VMM. Interrupt lines (bit n: GSI n) that a shard may raise with a reply */
    uint8_t near[SIO_MAX_SHARDS];       /* shards, nearest first: who is asked for a replicated device */
    struct sio_waiter waiter;
    /* written by every access: a line of its own, and one for each shard */
    uint8_t pad0[SIO_LINE];
    uint64_t pending;                   /* journal; not 0 inside an access: SP-QUIESCE */
    uint64_t accesses;
    uint64_t sampling;                  /* sample_mask, 0 in the beginning */
    uint32_t lines;                     /* granted ones that replies brought, for the caller to pulse and clear */
    uint32_t target;                    /* the shard that this client's last message went, or goes, to */
    struct sio_map_view map;            /* that `route` was filled from */
    uint8_t pad1[SIO_LINE];
    struct sio_client_shard {
        uint64_t seq;                   /* of the last request */
        uint64_t posted;                /* ring position of the next posted write */
        uint64_t credit;                /* the owner's credit, as last looked up */
        uint64_t rung;                  /* the doze that this client's last ring answered */
        struct sio_mailbox *box;
        struct sio_posted *ring;
        const uint64_t *doze;           /* its owner's */
        uint64_t pad;
    } shard[SIO_MAX_SHARDS];
    struct sio_route route[SIO_ROUTE_SLOTS];
    struct sio_patience unknown;        /* of waits that belong to no route: none */
};

void sio_client_init(struct sio_client *client, const struct sio_fabric *fabric, uint32_t vcpu);

/* One access of `size` bytes (1, 2, 4, 8), or a string of `count` of them at `string`. `*data`: the value to write, or
 * where the value read goes: all-ones of the width when nothing answers. The journal stays set: call sio_client_complete. */
enum sio_outcome sio_client_access(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint64_t *data);
enum sio_outcome sio_client_string(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, int write,
                                   uint32_t count, uint8_t *string);
/* Before a fresh worker's first access: its predecessor may have been killed while it wrote a route down. */
static inline void sio_client_resume(struct sio_client *client) { client->map.generation = ~0ull; }
/* The access is complete: its result is where it belongs. */
static inline void sio_client_complete(struct sio_client *client)
{
    sio_store_release(&client->pending, 0); /* SP-QUIESCE */
}

/* For callers without a vCPU (benchmarks, tests, other VMMs): access and complete in one. */
int sio_client_read(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t *data);
int sio_client_write(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t data);

#endif
