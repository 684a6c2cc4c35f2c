/* Clients and owners as threads over the core's own sources, against a model; run under the sanitizers.
 *
 * Every client has a device of its own on every shard, which folds each write, in the order of arrival, into a hash: the client
 * folds too, and a read compares. So an access that is lost, doubled, torn or out of its order is seen at the next read.
 * Meanwhile the map is published again and again (ranges come, go, change to posted and back), one shard's owner is replaced
 * by a successor, and pauses on both sides make both sides sleep: no wake-up may be lost.
 */
#include "harness.h"

#include "client.h"
#include "owner.h"
#include "recovery.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CLIENTS 3u
#define SHARDS 2u
#define DEVICES (SHARDS * CLIENTS)
#define PER_DEVICE 2u                                /* ranges: synchronous, posted */
#define SHARED (DEVICES * PER_DEVICE)                /* every client counts here */
#define REPLICA (SHARED + 1)                         /* both shards answer */
#define GHOST (SHARED + 2)                           /* comes and goes, nobody answers */
#define RANGES (SHARED + 3)
#define POSTED_SLOTS 16u
#define ACCESSES 20000u
#define SUCCESSIONS 20u

#define SYNC_BASE(device) (0x100000ull + (device) * 0x1000)
#define POSTED_BASE(device) (0x800000ull + (device) * 0x1000)
#define PORT_BASE(device) (0x100ull + (device) * 0x10)
#define SHARED_BASE 0x10000ull
#define REPLICA_BASE 0x20000ull
#define GHOST_BASE 0x30000ull
#define REPLICA_VALUE 0x1122334455667788ull
#define SLOW_OFFSET 0x40u

struct device {
    uint64_t hash;
    uint64_t writes;
    uint64_t slow;
};

static struct sio_fabric fabric;
static struct device devices[DEVICES];
static uint64_t shared_count;
static int doorbells[SHARDS];
static uint32_t stop_owner[SHARDS];
static uint32_t stop_publisher;
static uint32_t membarrier;

static uint64_t fold(uint64_t hash, uint64_t value, uint32_t size) { return (hash ^ (value + size)) * 0x100000001b3ull; }

static void nap(uint32_t us)
{
    struct timespec time = {0, us * 1000L};
    nanosleep(&time, NULL);
}

/* ---- devices ------------------------------------------------------------------------------------------------------ */

static int fold_device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    struct device *device = context;
    if (offset == SLOW_OFFSET && ++device->slow % 16 == 0)
        nap(200); /* longer than a client polls: it sleeps */
    if (write) {
        device->hash = fold(device->hash, *value, size);
        device->writes++;
    } else
        *value = device->hash;
    return 0;
}

static int shared_device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    shared_count += write ? *value : 0;
    *value = shared_count;
    return 0;
}

static int replicated_device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    *value = REPLICA_VALUE;
    return write; /* it takes no writes: they are refused */
}

static struct sio_handler handler(uint32_t space, uint64_t base, uint64_t size, sio_native_handler native, void *context)
{
    return (struct sio_handler){.kind = SIO_NATIVE, .space = (uint16_t)space, .base = base, .last = base + size - 1,
                                .native = native, .context = context};
}

static void set_handlers(struct sio_owner *owner)
{
    for (uint32_t d = owner->shard * CLIENTS; d < (owner->shard + 1) * CLIENTS; d++) {
        owner->handlers[d * PER_DEVICE] = handler(SIO_MMIO, SYNC_BASE(d), 0x1000, fold_device, &devices[d]);
        owner->handlers[d * PER_DEVICE + 1] = handler(SIO_PIO, PORT_BASE(d), 8, fold_device, &devices[d]);
    }
    if (owner->shard == 0)
        owner->handlers[SHARED] = handler(SIO_MMIO, SHARED_BASE, 8, shared_device, NULL);
    owner->handlers[REPLICA] = handler(SIO_MMIO, REPLICA_BASE, 8, replicated_device, NULL);
    owner->posted_ranges = 2 * CLIENTS;
}

/* ---- owners ------------------------------------------------------------------------------------------------------- */

static void *own(void *argument)
{
    uint32_t shard = (uint32_t)(uintptr_t)argument;
    struct sio_owner owner;
    CHECK(sio_owner_init(&owner, &fabric, shard, doorbells[shard]) == 0, "shard %u", shard);
    owner.membarrier = membarrier;
    set_handlers(&owner);
    while (!sio_load_acquire(&stop_owner[shard]))
        if (sio_owner_turn(&owner, 500000, -1) == SIO_TURN_ASLEEP) {
            struct pollfd bell = {.fd = doorbells[shard], .events = POLLIN};
            poll(&bell, 1, 100);
        }
    sio_owner_free(&owner);
    return NULL;
}

static void end_owner(uint32_t shard, pthread_t thread)
{
    sio_store_release(&stop_owner[shard], 1u);
    sio_eventfd_ring(doorbells[shard]);
    pthread_join(thread, NULL);
    sio_store_release(&stop_owner[shard], 0u);
}

/* The owner has stopped between two requests, so none is marked as taken; the successor goes on with what is there. */
static pthread_t succeed(uint32_t shard, pthread_t thread)
{
    struct sio_request request;
    int taken;
    end_owner(shard, thread);
    for (uint32_t v = 0; v < CLIENTS; v++)
        if (sio_recover_request(&fabric, shard, v, &request, &taken))
            CHECK(!taken, "vCPU %u: a request that no handler saw is marked as taken", v);
    sio_recover_epoch(&fabric, shard);
    CHECK(pthread_create(&thread, NULL, own, (void *)(uintptr_t)shard) == 0, "no thread");
    return thread;
}

/* ---- the map ------------------------------------------------------------------------------------------------------ */

static void publish(uint64_t generation)
{
    struct sio_map_entry entries[2 * DEVICES + SHARED];
    uint32_t n = 0, pio;
    for (uint32_t d = 0; d < DEVICES; d++)
        entries[n++] = (struct sio_map_entry){PORT_BASE(d), PORT_BASE(d) + 7, 1ull << d / CLIENTS, d * PER_DEVICE + 1,
                                              (generation + d) % 3 == 0 ? SIO_RANGE_POSTED : 0};
    pio = n;
    entries[n++] = (struct sio_map_entry){SHARED_BASE, SHARED_BASE + 7, 1, SHARED, 0};
    entries[n++] = (struct sio_map_entry){REPLICA_BASE, REPLICA_BASE + 7, 3, REPLICA, 0};
    if (generation & 1)
        entries[n++] = (struct sio_map_entry){GHOST_BASE, GHOST_BASE + 7, 1, GHOST, SIO_RANGE_QUARANTINED};
    for (uint32_t d = 0; d < DEVICES; d++)
        entries[n++] = (struct sio_map_entry){SYNC_BASE(d), SYNC_BASE(d) + 0xfff, 1ull << d / CLIENTS, d * PER_DEVICE,
                                              (generation + d) % 2 ? SIO_RANGE_POSTED : 0};
    CHECK(sio_map_publish(&fabric, entries, pio, n - pio) == 0, "the map has no room");
}

static void *publisher(void *unused)
{
    for (uint64_t generation = 1; !sio_load_acquire(&stop_publisher); generation++) {
        publish(generation);
        nap(generation % 8 ? 50 : 2000);
    }
    return NULL;
}

/* ---- clients ------------------------------------------------------------------------------------------------------ */

struct guest {
    uint32_t vcpu;
    uint64_t random;
    uint64_t hash[SHARDS];
    uint64_t added;
    uint64_t last_shared;
    uint64_t reads, writes, refused;
    struct sio_client client;
};

static void check_hash(struct guest *g, uint32_t device, uint32_t shard)
{
    uint64_t value = 0;
    int outcome = sio_client_read(&g->client, SIO_MMIO, SYNC_BASE(device) + SLOW_OFFSET, 8, &value);
    CHECK(outcome == SIO_ANSWERED && value == g->hash[shard], "vCPU %u, shard %u: outcome %d, hash %llx, expected %llx", g->vcpu,
          shard, outcome, (unsigned long long)value, (unsigned long long)g->hash[shard]);
    g->reads++;
}

static void write_value(struct guest *g, uint32_t device, uint32_t shard, uint32_t space, uint64_t address, uint32_t size)
{
    uint64_t value = random_next(&g->random) & ~0ull >> (64 - size * 8);
    CHECK(sio_client_write(&g->client, space, address, size, value) == SIO_ANSWERED, "vCPU %u: write to %llx", g->vcpu,
          (unsigned long long)address);
    g->hash[shard] = fold(g->hash[shard], value, size);
    g->writes++;
}

static void write_string(struct guest *g, uint32_t device, uint32_t shard)
{
    uint8_t bytes[64];
    uint32_t size = 1u << random_next(&g->random) % 3, count = 2 + (uint32_t)(random_next(&g->random) % 14);
    for (uint32_t i = 0; i < size * count; i++)
        bytes[i] = (uint8_t)random_next(&g->random);
    CHECK(sio_client_string(&g->client, SIO_PIO, PORT_BASE(device), size, 1, count, bytes) == SIO_ANSWERED, "string");
    sio_client_complete(&g->client);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t value = 0;
        __builtin_memcpy(&value, bytes + i * size, size);
        g->hash[shard] = fold(g->hash[shard], value, size);
    }
    g->writes++;
}

static void read_string(struct guest *g, uint32_t device, uint32_t shard)
{
    uint32_t words[8];
    CHECK(sio_client_string(&g->client, SIO_PIO, PORT_BASE(device), 4, 0, 8, (uint8_t *)words) == SIO_ANSWERED, "string");
    sio_client_complete(&g->client);
    for (uint32_t i = 0; i < 8; i++)
        CHECK(words[i] == (uint32_t)g->hash[shard], "vCPU %u: element %u", g->vcpu, i);
    g->reads++;
}

static void touch_common(struct guest *g)
{
    uint64_t value = random_next(&g->random) & 0xff, seen = 0;
    CHECK(sio_client_write(&g->client, SIO_MMIO, SHARED_BASE, 8, value) == SIO_ANSWERED, "shared write");
    CHECK(sio_client_read(&g->client, SIO_MMIO, SHARED_BASE, 8, &seen) == SIO_ANSWERED, "shared read");
    g->added += value;
    CHECK(seen >= g->last_shared + value, "vCPU %u: the shared count went back", g->vcpu);
    g->last_shared = seen;
    CHECK(sio_client_read(&g->client, SIO_MMIO, REPLICA_BASE, 8, &seen) == SIO_ANSWERED && seen == REPLICA_VALUE, "replica");
    CHECK(sio_client_write(&g->client, SIO_MMIO, REPLICA_BASE, 8, value) == SIO_NOT_ANSWERED, "a refused write was answered");
    CHECK(sio_client_read(&g->client, SIO_MMIO, GHOST_BASE, 4, &seen) == SIO_NOT_ANSWERED && seen == 0xffffffff, "ghost");
    CHECK(sio_client_read(&g->client, SIO_MMIO, REPLICA_BASE + 4, 8, &seen) == SIO_NOT_ANSWERED && seen == ~0ull, "crossing");
    g->writes++;
    g->reads += 2;
    g->refused++;
}

static void *guest(void *argument)
{
    struct guest *g = argument;
    for (uint32_t i = 0; i < ACCESSES; i++) {
        uint32_t shard = (uint32_t)(random_next(&g->random) % SHARDS), device = shard * CLIENTS + g->vcpu;
        switch (random_next(&g->random) % 16) {
        case 0:
            touch_common(g);
            break;
        case 1:
            write_string(g, device, shard);
            break;
        case 2:
            read_string(g, device, shard);
            break;
        case 3: case 4:
            check_hash(g, device, shard);
            break;
        case 5: case 6: case 7:
            write_value(g, device, shard, SIO_PIO, PORT_BASE(device), 1u << random_next(&g->random) % 3);
            break;
        default:
            write_value(g, device, shard, SIO_MMIO, SYNC_BASE(device) + (random_next(&g->random) % 16) * 8,
                        1u << random_next(&g->random) % 4);
        }
        if (i % 256 == 0)
            nap(100 + (uint32_t)(random_next(&g->random) % 1000)); /* long enough for an owner to sleep */
    }
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        check_hash(g, shard * CLIENTS + g->vcpu, shard);
    return NULL;
}

/* What the shards counted is what the guests did; what was refused to a guest is counted on its own side. */
static void compare_counters(const struct guest *guests)
{
    uint64_t reads = 0, writes = 0, asked_reads = 0, asked_writes = 0;
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        for (uint32_t r = 0; r < GHOST; r++) {
            const struct sio_stat *stat = sio_stat(&fabric, shard, r);
            reads += stat->reads;
            writes += stat->writes + stat->posted;
        }
    for (uint32_t v = 0; v < CLIENTS; v++) {
        uint64_t refused = 0;
        for (uint32_t r = 0; r < GHOST; r++)
            refused += sio_hist(&fabric, v, r)->refused;
        CHECK(refused == guests[v].refused, "vCPU %u counts %llu refused, not %llu", v, (unsigned long long)refused,
              (unsigned long long)guests[v].refused);
        asked_reads += guests[v].reads;
        asked_writes += guests[v].writes + guests[v].refused;
        for (uint32_t shard = 0; shard < SHARDS; shard++)
            for (uint32_t r = 0; r < PER_DEVICE; r++)
                CHECK(sio_stat(&fabric, shard, (shard * CLIENTS + v) * PER_DEVICE + r)->refused == 0, "a device of its own refused");
    }
    CHECK(reads == asked_reads && writes == asked_writes, "the shards count %llu reads, %llu writes, not %llu, %llu",
          (unsigned long long)reads, (unsigned long long)writes, (unsigned long long)asked_reads, (unsigned long long)asked_writes);
}

/* With an argument: a fence on each side of the hand-shake instead of the sleeper's membarrier. */
int main(int argc, char **argv)
{
    static struct guest guests[CLIENTS];
    pthread_t owners[SHARDS], clients[CLIENTS], map;
    uint64_t added = 0, slept_owners = 0, slept_clients = 0;

    fabric = make_fabric(CLIENTS, SHARDS, RANGES, POSTED_SLOTS);
    membarrier = argc < 2 && sio_membarrier_register() == 0;
    publish(0);
    for (uint32_t s = 0; s < SHARDS; s++) {
        doorbells[s] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        pthread_create(&owners[s], NULL, own, (void *)(uintptr_t)s);
    }
    for (uint32_t v = 0; v < CLIENTS; v++) {
        guests[v].vcpu = v;
        guests[v].random = 0x9e3779b97f4a7c15ull * (v + 1);
        sio_client_init(&guests[v].client, &fabric, v);
        guests[v].client.sample_mask = 15;
        guests[v].client.waiter.membarrier = membarrier;
        for (uint32_t s = 0; s < SHARDS; s++)
            guests[v].client.doorbell[s] = doorbells[s];
        pthread_create(&clients[v], NULL, guest, &guests[v]);
    }
    pthread_create(&map, NULL, publisher, NULL);
    for (uint32_t i = 0; i < SUCCESSIONS; i++) {
        nap(5000);
        owners[1] = succeed(1, owners[1]);
    }
    for (uint32_t v = 0; v < CLIENTS; v++) {
        pthread_join(clients[v], NULL);
        added += guests[v].added;
    }
    sio_store_release(&stop_publisher, 1u);
    pthread_join(map, NULL);
    for (uint32_t s = 0; s < SHARDS; s++) {
        end_owner(s, owners[s]);
        slept_owners += fabric.shard[s].sleeps;
        CHECK(fabric.shard[s].lost_wakeups == 0, "shard %u lost %llu wake-ups", s, (unsigned long long)fabric.shard[s].lost_wakeups);
        CHECK(fabric.shard[s].malformed == 0, "shard %u took a request for hostile", s);
        close(doorbells[s]);
    }
    for (uint32_t v = 0; v < CLIENTS; v++) {
        slept_clients += fabric.vcpu[v].sleeps;
        CHECK(fabric.vcpu[v].lost_wakeups == 0, "vCPU %u lost %llu wake-ups", v, (unsigned long long)fabric.vcpu[v].lost_wakeups);
        CHECK(fabric.vcpu[v].malformed == 0, "vCPU %u took a reply for hostile", v);
    }
    compare_counters(guests);
    CHECK(shared_count == added, "%llu added, %llu counted", (unsigned long long)added, (unsigned long long)shared_count);
    CHECK(fabric.shard[1].epoch == SUCCESSIONS, "epoch %llu", (unsigned long long)fabric.shard[1].epoch);
    CHECK(slept_owners && slept_clients, "nobody slept: the hand-shake was not exercised");
    printf("threads: %u accesses by %u vCPUs on %u shards, %llu and %llu sleeps, %llu map generations, %u successions, %s: no difference\n",
           CLIENTS * ACCESSES, CLIENTS, SHARDS, (unsigned long long)slept_clients, (unsigned long long)slept_owners,
           (unsigned long long)sio_map_generation(&fabric), SUCCESSIONS, membarrier ? "membarrier" : "fences");
    free(fabric.base);
    return 0;
}
