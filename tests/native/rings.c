/* One client over two shards' rings against a model: random accesses, whose ranges change shard, come to be posted and cease to be,
 * with a ring that is full now and then and waits that are aborted, workers that are replaced and take an access up, from positions where
 * the lap's 16 bits, the journal's 48 and the position's 64 wrap. After each step the client's count of what it posted is the model's.
 *
 * A second thread is both owners, and looks only while it is told to: so what is in the rings, and when a ring is full, is known.
 */
#include "harness.h"

#include "client.h"
#include "owner.h"
#include "sys.h"

#include <pthread.h>
#include <string.h>

#define SHARDS 2u
#define DEVICES 4u
#define SPAN 0x40u
#define BASE(d) (0x10000ull + (d) * 0x1000)
#define STEPS 20000u
#define LOG (1u << 16)

struct effect {
    uint64_t value;
    uint32_t range, offset, size, write;
};

/* What a shard's devices should have seen, and how far that has been compared. */
struct log {
    struct effect expected[LOG];
    uint32_t n, seen;
};

static struct sio_fabric fabric;
static struct sio_owner owner[SHARDS];
static struct sio_client client;
static struct log logs[SHARDS];
static struct { uint32_t shard, range; } place[SHARDS][DEVICES];
static uint32_t shard_of[DEVICES], posted[DEVICES];
static uint64_t start[SHARDS], count[SHARDS], outstanding[SHARDS];
static uint32_t aborted, serving, looking, stop;
static uint64_t random_state = 1;

static uint32_t pick(uint32_t n) { return (uint32_t)(random_next(&random_state) % n); }

static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    const uint32_t *at = context;
    struct log *log = &logs[at[0]];
    struct effect *wanted = &log->expected[log->seen % LOG];
    CHECK(log->seen < log->n, "shard %u: an access that nobody made", at[0]);
    CHECK(wanted->range == at[1] && wanted->offset == offset && wanted->size == size && wanted->write == (uint32_t)write &&
              (!write || wanted->value == *value),
          "shard %u, access %u: range %u, offset %#llx, %u bytes, %s %#llx", at[0], log->seen, at[1], (unsigned long long)offset, size,
          write ? "write" : "read", (unsigned long long)*value);
    if (!write)
        *value = wanted->value;
    log->seen++;
    return 0;
}

static void expect(uint32_t d, uint32_t offset, uint32_t size, uint32_t write, uint64_t value)
{
    struct log *log = &logs[shard_of[d]];
    uint64_t mask = ~0ull >> (64 - size * 8);
    log->expected[log->n++ % LOG] = (struct effect){value & mask, d, offset, size, write};
}

static void scan(void)
{
    for (uint32_t s = 0; s < SHARDS; s++) {
        sio_owner_scan(&owner[s]);
        outstanding[s] = 0;
        CHECK(logs[s].seen == logs[s].n, "shard %u: %u of %u accesses arrived", s, logs[s].seen, logs[s].n);
    }
}

static void *own(void *unused)
{
    while (!sio_load_acquire(&stop)) {
        uint32_t told = sio_load_acquire(&serving);
        sio_store_release(&looking, told);
        for (uint32_t s = 0; told && s < SHARDS; s++)
            sio_owner_scan(&owner[s]);
        sio_yield();
    }
    return NULL;
}

static void let_serve(uint32_t told)
{
    sio_store_release(&serving, told);
    while (sio_load_acquire(&looking) != told)
        sio_yield();
    if (!told)
        scan();
}

static void publish(void)
{
    struct sio_map_entry map[DEVICES];
    for (uint32_t d = 0; d < DEVICES; d++)
        map[d] = (struct sio_map_entry){BASE(d), BASE(d) + SPAN - 1, 1ull << shard_of[d], d, posted[d] ? SIO_RANGE_POSTED : 0};
    CHECK(sio_map_publish(&fabric, map, 0, DEVICES) == 0, "no map");
}

/* As a worker does, which is replaced before the access is complete, once or twice; the fresh one makes the same access. */
static enum sio_outcome access(uint64_t address, uint32_t size, int write, uint64_t *data)
{
    enum sio_outcome outcome = SIO_NOT_ANSWERED;
    uint64_t given = *data;
    for (uint32_t lives = pick(4) ? 1 : 2 + pick(2); lives; lives--) {
        *data = given;
        outcome = sio_client_access(&client, SIO_MMIO, address, size, write, data);
        if (lives > 1)
            sio_client_resume(&client);
    }
    sio_client_complete(&client);
    return outcome;
}

static void write_posted(uint32_t d, uint32_t offset, uint32_t size, uint64_t value)
{
    uint32_t s = shard_of[d];
    int full = outstanding[s] == fabric.posted_slots;
    sio_store_release(&aborted, (uint32_t)full);
    enum sio_outcome outcome = pick(2) ? (enum sio_outcome)sio_client_write(&client, SIO_MMIO, BASE(d) + offset, size, value)
                                       : access(BASE(d) + offset, size, 1, &value);
    sio_store_release(&aborted, 0u);
    CHECK(outcome == (full ? SIO_ABORTED : SIO_ANSWERED), "a posted write: outcome %d, %llu outstanding", outcome,
          (unsigned long long)outstanding[s]);
    if (full)
        return;
    expect(d, offset, size, 1, value);
    count[s]++;
    outstanding[s]++;
}

static void synchronous(uint32_t d, uint32_t offset, uint32_t size, uint32_t write)
{
    uint64_t value = random_next(&random_state), given = value;
    expect(d, offset, size, write, value);
    let_serve(1);
    enum sio_outcome outcome = access(BASE(d) + offset, size, (int)write, &given);
    let_serve(0);
    CHECK(outcome == SIO_ANSWERED, "outcome %d", outcome);
    CHECK(write || given == (value & ~0ull >> (64 - size * 8)), "a read");
}

static void string(uint32_t d)
{
    uint8_t bytes[12];
    for (uint32_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)random_next(&random_state);
        expect(d, 8, 1, 1, bytes[i]);
    }
    let_serve(1);
    CHECK(sio_client_string(&client, SIO_MMIO, BASE(d) + 8, 1, 1, sizeof bytes, bytes) == SIO_ANSWERED, "string");
    sio_client_complete(&client);
    let_serve(0);
}

static void refused(uint32_t d)
{
    uint64_t value = 7;
    CHECK(access(BASE(d) + SPAN - 1, 4, 1, &value) == SIO_NOT_ANSWERED, "one that crosses the end");
    CHECK(access(BASE(d) + SPAN, 4, 1, &value) == SIO_NOT_ANSWERED, "one beyond it");
}

static void step(void)
{
    uint32_t d = pick(DEVICES), size = 1u << pick(4), offset = pick(SPAN / size) * size;
    switch (pick(40)) {
    case 0: case 1:
        scan();
        break;
    case 2:
        shard_of[d] = pick(SHARDS);
        posted[d] = pick(2);
        publish();
        break;
    case 3:
        synchronous(d, offset, size, 0);
        break;
    case 4:
        string(d);
        break;
    case 5:
        refused(d);
        break;
    case 6:
        sio_client_resume(&client);
        break;
    default:
        if (posted[d])
            write_posted(d, offset, size, random_next(&random_state));
        else if (pick(4) == 0)
            synchronous(d, offset, size, 1);
    }
    for (uint32_t s = 0; s < SHARDS; s++)
        CHECK(sio_client_posted(&client, s) == start[s] + count[s], "shard %u: %llu posted, the client says %llu", s,
              (unsigned long long)count[s], (unsigned long long)(sio_client_posted(&client, s) - start[s]));
    CHECK(sio_client_pending(&client) == 0, "pending");
}

static void from(uint64_t first, uint64_t second, uint32_t slots, int membarrier)
{
    pthread_t thread;
    fabric = make_fabric(1, SHARDS, DEVICES, slots);
    start[0] = first;
    start[1] = second;
    stop = serving = looking = 0;
    for (uint32_t s = 0; s < SHARDS; s++) {
        struct sio_posted *ring = sio_ring(&fabric, s, 0);
        logs[s].n = logs[s].seen = 0;
        count[s] = outstanding[s] = 0;
        sio_credit(&fabric, s, 0)->taken = start[s];
        for (uint64_t held = start[s] - slots; held != start[s]; held++)
            ring[held & (slots - 1)].lap = sio_posted_lap(&fabric, held);
        CHECK(sio_owner_init(&owner[s], &fabric, s, -1) == 0, "no owner");
        owner[s].posted_ranges = DEVICES;
        for (uint32_t d = 0; d < DEVICES; d++) {
            place[s][d].shard = s;
            place[s][d].range = d;
            owner[s].handlers[d] = (struct sio_handler){.kind = SIO_NATIVE, .space = SIO_MMIO, .base = BASE(d),
                                                        .last = BASE(d) + SPAN - 1, .native = device, .context = &place[s][d]};
        }
    }
    for (uint32_t d = 0; d < DEVICES; d++) {
        shard_of[d] = d % SHARDS;
        posted[d] = d < 3;
    }
    publish();
    sio_client_init(&client, &fabric, 0);
    client.sample_mask = 15;
    client.waiter.membarrier = membarrier && fabric.membarrier;
    client.waiter.abort = &aborted;
    client.waiter.abort_value = 1;
    CHECK(pthread_create(&thread, NULL, own, NULL) == 0, "no thread");
    for (uint32_t i = 0; i < STEPS; i++)
        step();
    scan();
    sio_store_release(&stop, 1u);
    pthread_join(thread, NULL);
    CHECK(fabric.vcpu[0].malformed == 0 && fabric.shard[0].malformed == 0 && fabric.shard[1].malformed == 0, "a message that made no sense");
    for (uint32_t s = 0; s < SHARDS; s++) {
        uint64_t counted = 0;
        for (uint32_t d = 0; d < DEVICES; d++)
            counted += sio_stat(&fabric, s, d)->posted;
        CHECK(counted == count[s], "shard %u counts %llu posted writes, not %llu", s, (unsigned long long)counted,
              (unsigned long long)count[s]);
        sio_owner_free(&owner[s]);
    }
    free(fabric.base);
}

int main(void)
{
    static const uint32_t slots[] = {2, 8, 128};
    for (uint32_t i = 0; i < 3; i++)
        for (int membarrier = 0; membarrier < 2; membarrier++) {
            from(0, 1, slots[i], membarrier);
            from((uint64_t)slots[i] << 16, ((uint64_t)slots[i] << 16) - 3, slots[i], membarrier);
            from((1ull << 48) - 3, (1ull << 48) - slots[i] - 40, slots[i], membarrier);
            from(0ull - 3, 0ull - slots[i] - 200, slots[i], membarrier);
        }
    printf("rings: %u random accesses from each of 8 positions in rings of 2, 8 and 128: no difference\n", STEPS);
    return 0;
}
