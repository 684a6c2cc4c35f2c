/* `sio_client_posted`, asked by another thread while the client goes from ring to ring: never less than what the owners have taken, and, as
 * it ends, what was posted. */
#include "harness.h"

#include "client.h"
#include "owner.h"
#include "sys.h"

#include <pthread.h>

#define SHARDS 2u
#define WRITES 200000u
#define BASE(s) (0x1000ull * ((s) + 1))

static struct sio_fabric fabric;
static struct sio_client client;
static uint64_t posted[SHARDS];
static uint32_t stop;

static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value) { return 0; }

static void *own(void *argument)
{
    struct sio_owner owner;
    uint32_t shard = (uint32_t)(uintptr_t)argument;
    CHECK(sio_owner_init(&owner, &fabric, shard, -1) == 0, "no owner");
    owner.handlers[shard] = (struct sio_handler){.kind = SIO_NATIVE, .space = SIO_MMIO, .base = BASE(shard), .last = BASE(shard) + 0xff,
                                                 .native = device};
    owner.posted_ranges = 1;
    while (!sio_load_acquire(&stop))
        if (sio_owner_scan(&owner) == 0)
            sio_yield();
    sio_owner_scan(&owner);
    sio_owner_free(&owner);
    return NULL;
}

static void *guest(void *unused)
{
    uint64_t random = 7, value;
    for (uint32_t i = 0; i < WRITES;) {
        uint32_t shard = (uint32_t)(random_next(&random) % SHARDS), run = (uint32_t)(random_next(&random) % 4);
        for (uint32_t end = i + run; i < end; i++, posted[shard]++)
            CHECK(sio_client_write(&client, SIO_MMIO, BASE(shard), 4, i) == SIO_ANSWERED, "write");
        if (random_next(&random) % 64 == 0)
            sio_client_read(&client, SIO_MMIO, BASE(shard), 4, &value);
        i++;
    }
    sio_store_release(&stop, 1u);
    return NULL;
}

int main(void)
{
    pthread_t owners[SHARDS], client_thread;
    uint64_t looks = 0;
    fabric = make_fabric(1, SHARDS, SHARDS, 8);
    struct sio_map_entry map[] = {{BASE(0), BASE(0) + 0xff, 1, 0, SIO_RANGE_POSTED}, {BASE(1), BASE(1) + 0xff, 2, 1, SIO_RANGE_POSTED}};
    CHECK(sio_map_publish(&fabric, map, 0, SHARDS) == 0, "no map");
    sio_client_init(&client, &fabric, 0);
    client.sample_mask = 63;
    client.waiter.membarrier = fabric.membarrier;
    for (uint32_t s = 0; s < SHARDS; s++)
        pthread_create(&owners[s], NULL, own, (void *)(uintptr_t)s);
    pthread_create(&client_thread, NULL, guest, NULL);
    for (; !sio_load_acquire(&stop); looks++) {
        if (looks % 64 == 0)
            sio_yield();
        for (uint32_t s = 0; s < SHARDS; s++) {
            uint64_t taken = sio_load_acquire(&sio_credit(&fabric, s, 0)->taken), said = sio_client_posted(&client, s);
            CHECK(said >= taken, "shard %u has taken %llu, the client says it has posted %llu", s, (unsigned long long)taken,
                  (unsigned long long)said);
        }
    }
    pthread_join(client_thread, NULL);
    for (uint32_t s = 0; s < SHARDS; s++) {
        pthread_join(owners[s], NULL);
        CHECK(sio_client_posted(&client, s) == posted[s], "shard %u", s);
    }
    printf("counts: %llu looks at a client that posts to two shards in turn: never less than what was taken\n", (unsigned long long)looks);
    free(fabric.base);
    return 0;
}
