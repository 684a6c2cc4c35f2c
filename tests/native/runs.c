/* drain.c's runs to native handlers: two vCPUs whose rings lie side by side post to the same ranges, in step; every write arrives at its
 * own turn, once, with its width; what fails and what nobody wants is counted, and one in 64 is timed. */
#include "harness.h"

#include "client.h"
#include "owner.h"

#include <string.h>

#define VCPUS 2u
#define ROUNDS 4000u

static struct sio_fabric fabric;
static struct { uint64_t value; uint32_t range, size; } queue[VCPUS][65536];
static uint32_t queued[VCPUS], seen[VCPUS];
static uint32_t ranges[3] = {0, 1, 2};
static uint64_t refused[3];

/* The low byte of a value says whose it is; one in seven fails. */
static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    uint32_t range = *(uint32_t *)context, v = *value & 0xff;
    CHECK(v < VCPUS && seen[v] < queued[v], "a write that nobody posted: %#llx", (unsigned long long)*value);
    CHECK(queue[v][seen[v]].range == range && queue[v][seen[v]].size == size && queue[v][seen[v]].value == *value && offset == 8,
          "vCPU %u, write %u: range %u, %u bytes, %#llx", v, seen[v], range, size, (unsigned long long)*value);
    return ++seen[v] % 7 == 0 ? (refused[range]++, 1) : 0;
}

static void test(uint32_t slots, uint64_t start)
{
    static struct sio_client client[VCPUS];
    uint64_t random = slots, posted[3] = {0}, nobodys = 0;
    struct sio_owner owner;
    fabric = make_fabric(VCPUS, 1, 4, slots);
    struct sio_map_entry map[4];
    for (uint32_t r = 0; r < 4; r++)
        map[r] = (struct sio_map_entry){0x1000 * (r + 1), 0x1000 * (r + 1) + 0xff, 1, r, SIO_RANGE_POSTED};
    CHECK(sio_map_publish(&fabric, map, 0, 4) == 0, "no map");
    for (uint32_t v = 0; v < VCPUS; v++) {
        sio_credit(&fabric, 0, v)->taken = start;
        for (uint64_t held = start - slots; held != start; held++)
            sio_ring(&fabric, 0, v)[held & (slots - 1)].lap = sio_posted_lap(&fabric, held);
        sio_client_init(&client[v], &fabric, v);
        client[v].waiter.membarrier = fabric.membarrier;
    }
    CHECK(sio_owner_init(&owner, &fabric, 0, -1) == 0, "no owner");
    owner.posted_ranges = 4;
    memset(refused, 0, sizeof refused);
    for (uint32_t r = 0; r < 3; r++) /* nobody has the fourth */
        owner.handlers[r] = (struct sio_handler){.kind = SIO_NATIVE, .space = SIO_MMIO, .base = map[r].base, .last = map[r].last,
                                                 .native = device, .context = &ranges[r]};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memset(queued, 0, sizeof queued);
        memset(seen, 0, sizeof seen);
        uint32_t n = random_next(&random) % 4 ? slots : 1 + (uint32_t)(random_next(&random) % slots), range = 0, size = 1;
        for (uint32_t i = 0; i < n; i++) {
            if (random_next(&random) % 16 == 0)
                range = (uint32_t)(random_next(&random) % 4), size = 1u << random_next(&random) % 4;
            for (uint32_t v = 0; v < VCPUS; v++) {
                uint64_t value = (random_next(&random) << 8 | v) & ~0ull >> (64 - size * 8);
                CHECK(sio_client_write(&client[v], SIO_MMIO, map[range].base + 8, size, value) == SIO_ANSWERED, "write");
                if (range == 3) {
                    nobodys++;
                    continue;
                }
                queue[v][queued[v]].value = value;
                queue[v][queued[v]].range = range;
                queue[v][queued[v]++].size = size;
                posted[range]++;
            }
        }
        CHECK(sio_owner_scan(&owner) == n * VCPUS, "not all were there");
        for (uint32_t v = 0; v < VCPUS; v++)
            CHECK(seen[v] == queued[v], "vCPU %u: %u of %u", v, seen[v], queued[v]);
    }
    for (uint32_t r = 0; r < 3; r++) {
        const struct sio_stat *stat = sio_stat(&fabric, 0, r);
        CHECK(stat->posted == posted[r] && stat->refused == refused[r], "range %u: %llu posted, %llu refused", r,
              (unsigned long long)stat->posted, (unsigned long long)stat->refused);
    }
    CHECK(fabric.shard->malformed == nobodys, "writes that nobody wanted");
    sio_owner_free(&owner);
    free(fabric.base);
}

int main(void)
{
    for (uint32_t slots = 2; slots <= 256; slots *= 2) {
        test(slots, 0);
        test(slots, (uint64_t)slots * 65535 - 1);
        test(slots, 0ull - slots * 3 / 2);
    }
    printf("runs: native handlers saw every write of 2 vCPUs whose rings lie side by side, once and whole\n");
    return 0;
}
