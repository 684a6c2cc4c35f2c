/* A shard that dies inside the handler of a posted write, native (drain.c's run) or not: its journal says that this write was taken, and its
 * successor goes on behind it, so that each write is applied zero or one time, and only the one in hand may be lost. */
#include "harness.h"

#include "client.h"
#include "owner.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 128u
#define WRITES 120u

static struct sio_fabric fabric;
static uint32_t *applied; /* by value; shared */
static uint32_t dies_at;

static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    applied[*value]++;
    if (*value == dies_at)
        _exit(0);
    return 0;
}

static int python(struct sio_owner *o, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write, uint64_t *value)
{
    return device(NULL, offset, size, (int)write, value);
}

static void serve(uint32_t kind)
{
    struct sio_owner owner;
    CHECK(sio_owner_init(&owner, &fabric, 0, -1) == 0, "no owner");
    owner.handlers[0] = (struct sio_handler){.kind = kind, .space = SIO_MMIO, .base = 0x1000, .last = 0x10ff};
    if (kind == SIO_NATIVE)
        owner.handlers[0].native = device;
    owner.python = python;
    owner.posted_ranges = 1;
    sio_owner_scan(&owner);
    sio_owner_free(&owner);
}

int main(void)
{
    static struct sio_client client;
    static uint8_t header[64];
    uint64_t size = sio_fabric_size(1, 1, 1, SLOTS);
    uint8_t *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    applied = mmap(NULL, SIO_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED && applied != MAP_FAILED, "no memory");
    CHECK(sio_fabric_create(&fabric, base, 1, 1, 1, SLOTS) == 0, "no fabric");
    memcpy(header, base, sizeof header);
    for (uint32_t kind = SIO_NATIVE; kind <= SIO_PYTHON; kind++)
        for (uint32_t timed = 0; timed < 2; timed++)
            for (dies_at = 0; dies_at < WRITES; dies_at++) {
                memset(base, 0, size);
                memcpy(base, header, sizeof header);
                memset(applied, 0, SIO_PAGE);
                struct sio_map_entry map = {0x1000, 0x10ff, 1, 0, SIO_RANGE_POSTED};
                CHECK(sio_map_publish(&fabric, &map, 0, 1) == 0, "no map");
                sio_stat(&fabric, 0, 0)->posted = timed ? 0 : SLOTS; /* a range's first writes are timed, each by itself */
                sio_client_init(&client, &fabric, 0);
                client.waiter.membarrier = fabric.membarrier;
                for (uint32_t i = 0; i < WRITES; i++)
                    CHECK(sio_client_write(&client, SIO_MMIO, 0x1000 + i % 64, 1 << i % 2, i) == SIO_ANSWERED, "write %u", i);
                pid_t pid = fork();
                if (pid == 0) {
                    serve(kind);
                    _exit(1);
                }
                int status;
                waitpid(pid, &status, 0);
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it did not die where it should");
                uint64_t taken = sio_credit(&fabric, 0, 0)->taken;
                CHECK(taken == dies_at + 1, "write %u killed the shard, its journal says %llu", dies_at, (unsigned long long)taken);
                dies_at += WRITES; /* the successor lives */
                serve(kind);
                dies_at -= WRITES;
                for (uint32_t i = 0; i < WRITES; i++)
                    CHECK(applied[i] == 1, "the shard died at write %u: write %u was applied %u times", dies_at, i, applied[i]);
            }
    printf("owner_kill: a shard that dies in any of %u posted writes: each applied once\n", WRITES);
    return 0;
}
