/* A trace ring: what is collected is what was written, whole; what was written over, or left by a writer that was killed, is counted,
 * once; and no head that a liar writes leads the reader astray. */
#include "harness.h"

#include "trace.h"

#include <pthread.h>
#include <string.h>

#define WRITERS 2u
#define EACH 200000u

static struct sio_fabric fabric;
static struct sio_trace_ring *ring;
static struct sio_trace_record out[4 * SIO_TRACE_SLOTS];
static uint64_t tail, unfinished, lost;

static void begin(void)
{
    memset(ring, 0, sizeof *ring);
    tail = unfinished = lost = 0;
}

static void write_one(uint64_t value)
{
    struct sio_trace_words words = {.begin = value, .end = value, .address = value, .value = value, .message = value};
    sio_trace_put(ring, &words);
}

static uint64_t collect(uint64_t room) { return sio_trace_collect(ring, &tail, &unfinished, out, room, &lost); }

static void in_order(void)
{
    begin();
    for (uint64_t i = 0; i < 3 * SIO_TRACE_SLOTS; i++) {
        write_one(i);
        CHECK(collect(1) == 1 && out[0].value == i && out[0].stamp == i + 1, "record %llu", (unsigned long long)i);
    }
    CHECK(collect(1) == 0 && lost == 0, "%llu lost", (unsigned long long)lost);
}

static void overwritten(void)
{
    begin();
    for (uint64_t i = 0; i < SIO_TRACE_SLOTS + 3; i++)
        write_one(i);
    CHECK(collect(2) == 2 && lost == 3 && out[0].value == 3 && out[1].value == 4, "the oldest three are lost, not %llu",
          (unsigned long long)lost);
    CHECK(collect(100) == SIO_TRACE_SLOTS - 2 && lost == 3, "the rest");
}

/* A writer that was killed after it took a position, with or without a part of its record. */
static void killed(int withdrawn)
{
    begin();
    for (uint64_t i = 0; i < SIO_TRACE_SLOTS; i++)
        write_one(i);
    CHECK(collect(100) == SIO_TRACE_SLOTS, "all");
    struct sio_trace_record *slot = &ring->slot[sio_take_number(&ring->head) & (SIO_TRACE_SLOTS - 1)];
    if (withdrawn) {
        slot->stamp = 0;
        slot->begin = ~0ull;
    }
    write_one(77);
    CHECK(collect(100) == 0 && lost == 0, "it may be at it still");
    CHECK(collect(100) == 1 && lost == 1 && out[0].value == 77, "its successor's");
    CHECK(collect(100) == 0 && lost == 1, "once");
}

static void liars(void)
{
    static const uint64_t heads[] = {0, 1, SIO_TRACE_SLOTS, 1ull << 63, ~0ull};
    uint64_t random = 1;
    for (uint32_t i = 0; i < 20000; i++) {
        begin();
        tail = heads[random_next(&random) % 5];
        ring->head = random_next(&random) % 2 ? heads[random_next(&random) % 5] : random_next(&random);
        for (uint32_t s = 0; s < SIO_TRACE_SLOTS; s++)
            ring->slot[s].stamp = random_next(&random) % 2 ? ring->head - s : random_next(&random);
        CHECK(collect(4 * SIO_TRACE_SLOTS) <= SIO_TRACE_SLOTS, "more than a ring holds");
    }
}

static void *writer(void *first)
{
    for (uint64_t i = 0; i < EACH; i++)
        write_one((uint64_t)(uintptr_t)first + i);
    return NULL;
}

/* Two threads of a shard write while the VMM collects: all that is collected is whole, and with what is lost it is all. */
static void together(void)
{
    pthread_t thread[WRITERS];
    uint64_t next[WRITERS] = {0}, n, total = 0;
    begin();
    for (uint64_t w = 0; w < WRITERS; w++)
        CHECK(pthread_create(&thread[w], NULL, writer, (void *)(uintptr_t)(w << 32)) == 0, "no thread");
    for (int quiet = 0; quiet < 3;) {
        n = collect(SIO_TRACE_SLOTS);
        quiet = n || sio_load_acquire(&ring->head) != WRITERS * EACH ? 0 : quiet + 1;
        total += n;
        for (uint64_t i = 0; i < n; i++) {
            const struct sio_trace_record *r = &out[i];
            uint64_t who = r->value >> 32, which = r->value & UINT32_MAX;
            CHECK(who < WRITERS && r->begin == r->value && r->message == r->value && r->address == r->value, "a torn record");
            CHECK(which >= next[who], "not in its writer's order");
            next[who] = which + 1;
        }
    }
    for (uint64_t w = 0; w < WRITERS; w++)
        pthread_join(thread[w], NULL);
    CHECK(total + lost == WRITERS * EACH, "%llu collected, %llu lost", (unsigned long long)total, (unsigned long long)lost);
}

int main(void)
{
    fabric = make_fabric(1, 1, 4, 4);
    ring = sio_trace_ring(&fabric, 1);
    in_order();
    overwritten();
    killed(0);
    killed(1);
    liars();
    together();
    free(fabric.base);
    puts("trace_ring: every record whole, in order, or counted as lost; a killed writer's and a liar's do no harm");
    return 0;
}
