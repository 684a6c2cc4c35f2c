/* A client that waits while a shard lets it neither sleep nor go on: it makes few system calls that cost others something, and it
 * ends when it is told to.
 *
 * Each sleep of a client begins with a membarrier, which interrupts every CPU that runs a process of the fabric. The word that it
 * sleeps on can be written by any shard.
 */
#include "harness.h"

#include "client.h"

#include <pthread.h>
#include <unistd.h>

#define BASE 0x1000ull
#define SLOTS 4u
#define WAIT_NS 60000000u

static struct sio_fabric fabric;
static struct sio_client client;
static uint32_t stop, told;

/* Takes the client's announcement back as soon as it is made. */
static void *never_lets_it_need_wakeup(void *unused)
{
    for (uint32_t n = 0; !sio_load_acquire(&stop); n++) {
        sio_store_relaxed(&fabric.vcpu[0].need_wakeup, n % 2 ? 7u : 0u);
        sio_futex_wake(&fabric.vcpu[0].need_wakeup);
    }
    return NULL;
}

/* Returns credit that cannot be, another one all the time. */
static void *never_gives_room(void *unused)
{
    for (uint64_t n = 1; !sio_load_acquire(&stop); n++)
        sio_store_release(&sio_credit(&fabric, 0, 0)->credit, n << 32);
    return NULL;
}

static void *tells_it_to_stop(void *unused)
{
    sio_nap(WAIT_NS);
    sio_store_release(&told, 1u);
    return NULL;
}

static void set_up(void)
{
    const struct sio_map_entry map = {BASE, BASE + 15, 1, 0, SIO_RANGE_POSTED};
    fabric = make_fabric(1, 1, 1, SLOTS);
    CHECK(sio_map_publish(&fabric, &map, 0, 1) == 0, "no map");
    sio_client_init(&client, &fabric, 0);
    client.waiter.membarrier = sio_membarrier_register() == 0;
    client.waiter.abort = &told;
    client.waiter.abort_value = 1;
    stop = told = 0;
}

static void with_liar(void *(*liar)(void *), void (*access)(void))
{
    pthread_t threads[2];
    set_up();
    CHECK(pthread_create(&threads[0], NULL, liar, NULL) == 0, "no thread");
    CHECK(pthread_create(&threads[1], NULL, tells_it_to_stop, NULL) == 0, "no thread");
    access();
    sio_store_release(&stop, 1u);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    free(fabric.base);
}

static void reads(void)
{
    uint64_t value;
    CHECK(sio_client_read(&client, SIO_MMIO, BASE, 4, &value) == SIO_ABORTED, "nobody could answer");
    CHECK(fabric.vcpu[0].sleeps <= 2 * SIO_VAIN_SLEEPS, "%llu sleeps, each with a membarrier",
          (unsigned long long)fabric.vcpu[0].sleeps);
}

/* Told before it looks for room the first time. */
static void posts(void)
{
    int outcome = SIO_ANSWERED;
    while (sio_load_acquire(&sio_credit(&fabric, 0, 0)->credit) == 0)
        sio_yield();
    sio_store_release(&told, 1u);
    for (uint32_t n = 0; n <= SLOTS && outcome == SIO_ANSWERED; n++)
        outcome = sio_client_write(&client, SIO_MMIO, BASE, 4, n);
    CHECK(outcome == SIO_ABORTED, "a write that found no room: %d", outcome);
    CHECK(fabric.vcpu[0].malformed <= 1, "it looked %llu times more", (unsigned long long)fabric.vcpu[0].malformed);
}

int main(void)
{
    alarm(20); /* a hang ends here */
    with_liar(never_lets_it_need_wakeup, reads);
    with_liar(never_gives_room, posts);
    printf("waits: a client that is not let sleep announces at most %u sleeps, and ends when told\n", SIO_VAIN_SLEEPS);
    return 0;
}
