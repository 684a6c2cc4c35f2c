/* Every word that a peer can write, written by a peer that lies, while the other side works: under AddressSanitizer and
 * UndefinedBehaviorSanitizer. ThreadSanitizer is no use here: the liar races on purpose.
 *
 * The segment lies on the heap, so a step past its end is seen; what the side under test has no business to write lies in
 * lines that are compared afterwards; handlers check that what they are called with is inside their range. An alarm ends a
 * hang.
 */
#include "harness.h"

#include "client.h"
#include "owner.h"
#include "recovery.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define VCPUS 3u
#define SHARDS 2u
#define RANGES 8u
#define SLOTS 8u
#define VICTIM 1u /* the vCPU, or the shard, under test */
#define ROUNDS 20000u
#define RACED 50000u         /* messages: the liar's thread may start late */
#define CLIENT_ANSWERS 1000u /* a lie about the need_wakeup word costs a client 10 ms */
#define BASE 0x1000u
#define SPAN 0x40u

static struct sio_fabric fabric;
static uint32_t stop;
static uint64_t handled;

/* The truth, mostly, so that lies get past the first check; else nonsense, or what is almost right. */
static uint64_t lie(uint64_t *random, uint64_t near_truth)
{
    uint64_t r = random_next(random);
    switch (r % 32) {
    case 0: return 0;
    case 1: return ~0ull;
    case 2: return r;
    case 3: return r & 0xff;
    case 4: return near_truth + (r >> 8) % 5 - 2;
    case 5: return near_truth ^ 1ull << (r >> 8) % 64;
    default: return near_truth;
    }
}

static void scribble(void *at, uint64_t bytes, uint64_t *random)
{
    uint8_t *byte = at;
    for (uint64_t i = 0; i < bytes; i++)
        sio_store_relaxed(&byte[i], (uint8_t)lie(random, byte[i]));
}

/* ---- a client among liars ------------------------------------------------------------------------------------------- */

static void lie_in_map(uint64_t *random)
{
    for (uint32_t which = 0; which < 2; which++) {
        struct sio_map_side *side = sio_map_side(&fabric, which);
        struct sio_map_place *place = sio_map_places(side);
        for (uint32_t space = 0; space < 2; space++) {
            sio_store_relaxed(&side->count[space], (uint32_t)lie(random, RANGES / 2));
            sio_store_relaxed(&side->scale[space], lie(random, ~0ull / SPAN));
        }
        for (uint32_t i = 0; i < RANGES; i++) {
            sio_store_relaxed(&place[i].base, lie(random, BASE));
            sio_store_relaxed(&place[i].rest, lie(random, sio_place_rest(SPAN - 1, RANGES - 1, 1, SIO_RANGE_POSTED)));
            sio_store_relaxed(&sio_map_wide(&fabric, which, i)->last, lie(random, BASE + SPAN - 1));
            sio_store_relaxed(&sio_map_wide(&fabric, which, i)->shards, lie(random, 3));
        }
    }
    sio_store_release(&fabric.map->generation, lie(random, fabric.map->generation + 1));
}

/* One that never gives room only hangs the vCPU, which the VMM's deadline ends: it is often near the truth. */
static void *liar_as_owner(void *argument)
{
    const struct sio_client *client = argument;
    uint64_t random = 0x1234567;
    for (uint32_t i = 0; !sio_load_acquire(&stop); i++) {
        if (i % 16 == 0)
            lie_in_map(&random);
        for (uint32_t s = 0; s < SHARDS; s++) {
            struct sio_mailbox *box = sio_mailbox(&fabric, s, VICTIM);
            uint64_t state = sio_load_acquire(&box->state);
            sio_store_relaxed(&box->data, random_next(&random));
            sio_store_release(&box->state, lie(&random, (state & ~3ull) | (2 + (random & 1))));
            sio_store_release(&sio_credit(&fabric, s, VICTIM)->credit, lie(&random, sio_client_posted(client, s)));
            scribble(&fabric.shard[s], sizeof *fabric.shard, &random);
        }
        sio_store_relaxed(&fabric.vcpu[VICTIM].need_wakeup, (uint32_t)lie(&random, 1));
        sio_wake_client(&fabric.vcpu[VICTIM]);
        sio_yield();
    }
    return NULL;
}

static int unchanged(const uint8_t *before, const void *part, uint64_t bytes)
{
    return memcmp(before + ((const uint8_t *)part - fabric.base), part, bytes) == 0;
}

/* Nobody's but those of row `mine` were written. */
static void check_histograms(const uint8_t *before, uint32_t mine)
{
    for (uint32_t row = 0; row < VCPUS + SHARDS; row++)
        CHECK(row == mine || (unchanged(before, sio_hist(&fabric, row, 0), RANGES * sizeof(struct sio_hist)) &&
                              unchanged(before, &fabric.in_use[row * fabric.in_use_row], fabric.in_use_row * sizeof *fabric.in_use)),
              "the histograms of row %u were written", row);
}

static void check_client_stayed_home(const uint8_t *before)
{
    CHECK(memcmp(before, fabric.base, sizeof(struct sio_header)) == 0, "the client wrote the header");
    for (uint32_t v = 0; v < VCPUS; v++) {
        if (v == VICTIM)
            continue;
        CHECK(memcmp(before + ((uint8_t *)&fabric.vcpu[v] - fabric.base), &fabric.vcpu[v], sizeof *fabric.vcpu) == 0,
              "the client wrote vCPU %u's counters", v);
        CHECK(memcmp(before + (sio_side(&fabric, v) - fabric.base), sio_side(&fabric, v), SIO_SIDE_BYTES) == 0,
              "the client wrote vCPU %u's side page", v);
        for (uint32_t s = 0; s < SHARDS; s++) {
            CHECK(memcmp(before + ((uint8_t *)sio_mailbox(&fabric, s, v) - fabric.base), sio_mailbox(&fabric, s, v), SIO_LINE) == 0,
                  "the client wrote vCPU %u's mailbox", v);
            CHECK(memcmp(before + ((uint8_t *)sio_ring(&fabric, s, v) - fabric.base), sio_ring(&fabric, s, v),
                         SLOTS * sizeof(struct sio_posted)) == 0, "the client wrote vCPU %u's ring", v);
        }
    }
    for (uint32_t s = 0; s < SHARDS; s++)
        CHECK(unchanged(before, sio_stat(&fabric, s, 0), RANGES * sizeof(struct sio_stat)), "the client wrote shard %u's counters", s);
    check_histograms(before, VICTIM);
}

static void client_among_liars(void)
{
    static struct sio_client client;
    static const uint32_t widths[4] = {1, 2, 4, 8};
    uint8_t string[SIO_SIDE_BYTES];
    uint64_t random = 99, value, answered = 0;
    pthread_t liar;

    fabric = make_fabric(VCPUS, SHARDS, RANGES, SLOTS);
    scribble(fabric.base + sizeof(struct sio_header), fabric.size - sizeof(struct sio_header), &random);
    sio_store_relaxed(&fabric.vcpu[VICTIM].malformed, 0);
    uint8_t *before = malloc(fabric.size);
    memcpy(before, fabric.base, fabric.size);
    lie_in_map(&random);
    sio_client_init(&client, &fabric, VICTIM);
    pthread_create(&liar, NULL, liar_as_owner, &client);
    uint32_t i = 0;
    for (; answered < CLIENT_ANSWERS; i++) {
        uint32_t size = widths[random_next(&random) % 4], space = (uint32_t)(random_next(&random) & 1), outcome;
        uint64_t address = lie(&random, BASE + (random_next(&random) % SPAN));
        int write = random_next(&random) & 1;
        if (i % 4 == 0) {
            uint32_t count = 1 + (uint32_t)(random_next(&random) % (SIO_SIDE_BYTES / size));
            outcome = sio_client_string(&client, space, address, size, write, count, string);
        } else {
            value = random_next(&random);
            outcome = sio_client_access(&client, space, address, size, write, &value);
            CHECK(write || size == 8 || value >> size * 8 == 0, "a read of %u bytes gave %llx", size, (unsigned long long)value);
        }
        CHECK(outcome == SIO_ANSWERED || outcome == SIO_NOT_ANSWERED, "outcome %u", outcome);
        answered += outcome == SIO_ANSWERED;
        if (random_next(&random) % 4) /* else: as if the worker had died, the same journal is taken up by other accesses */
            sio_client_complete(&client);
    }
    sio_store_release(&stop, 1u);
    pthread_join(liar, NULL);
    check_client_stayed_home(before);
    CHECK(fabric.vcpu[VICTIM].malformed > 0, "no lie was counted");
    printf("hostile: a client made %u accesses among liars, %llu answered, %llu lies counted\n", i, (unsigned long long)answered,
           (unsigned long long)fabric.vcpu[VICTIM].malformed);
    free(before);
    free(fabric.base);
}

/* ---- an owner among liars ------------------------------------------------------------------------------------------- */

static int guarded_device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    CHECK(context == &fabric, "another device's context");
    CHECK(size == 1 || size == 2 || size == 4 || size == 8, "width %u", size);
    CHECK(offset < SPAN && size <= SPAN - offset, "offset %llx, width %u", (unsigned long long)offset, size);
    CHECK(!write || size == 8 || *value >> size * 8 == 0, "a write of %u bytes brings %llx", size, (unsigned long long)*value);
    *value = 0x5a5a5a5a5a5a5a5aull;
    handled++;
    return (int)(handled % 7 == 0);
}

static void lie_to_owner(uint64_t *random, uint64_t *seq)
{
    for (uint32_t v = 0; v < VCPUS; v++) {
        struct sio_mailbox *box = sio_mailbox(&fabric, VICTIM, v);
        struct sio_posted *ring = sio_ring(&fabric, VICTIM, v);
        uint64_t taken = sio_load_relaxed(&sio_credit(&fabric, VICTIM, v)->taken);
        for (uint32_t i = 0; i < SLOTS; i++) {
            struct sio_posted *slot = &ring[i];
            sio_store_relaxed(&slot->range, (uint16_t)lie(random, random_next(random) % 8 ? 2 : RANGES));
            sio_store_relaxed(&slot->where, (uint32_t)lie(random, (random_next(random) % SPAN) << 2 | random_next(random) % 4));
            sio_store_relaxed(&slot->data, random_next(random));
            sio_store_release(&slot->lap, (uint16_t)lie(random, sio_posted_lap(&fabric, taken + (i - taken) % SLOTS)));
        }
        sio_store_relaxed(&box->address, lie(random, BASE + random_next(random) % SPAN));
        sio_store_relaxed(&box->data, random_next(random));
        sio_store_relaxed(&box->posted_upto, lie(random, taken));
        sio_store_relaxed(&box->range, (uint16_t)lie(random, random_next(random) % 8 ? 2 : RANGES));
        sio_store_relaxed(&box->count, (uint16_t)lie(random, 3));
        sio_store_relaxed(&box->op, (uint8_t)lie(random, random_next(random) & 7));
        sio_store_relaxed(&box->size, (uint8_t)lie(random, 1u << random_next(random) % 4));
        sio_store_relaxed(&box->space, (uint8_t)lie(random, SIO_MMIO));
        sio_store_release(&box->state, lie(random, SIO_STATE(++*seq, SIO_REQUEST)));
        sio_store_relaxed(&fabric.vcpu[v].need_wakeup, (uint32_t)lie(random, 1));
    }
    scribble(fabric.map, sizeof *fabric.map, random);
    scribble(&fabric.shard[VICTIM].need_wakeup, 8, random);
    scribble(&fabric.shard[VICTIM].owner_epoch, 8, random);
}

static void *liar_as_client(void *unused)
{
    uint64_t random = 0x7654321, seq = 1ull << 40;
    while (!sio_load_acquire(&stop)) {
        lie_to_owner(&random, &seq);
        sio_yield();
    }
    return NULL;
}

static void check_owner_stayed_home(const uint8_t *before)
{
    CHECK(memcmp(before, fabric.base, sizeof(struct sio_header)) == 0, "the owner wrote the header");
    for (uint32_t s = 0; s < SHARDS; s++) {
        if (s == VICTIM)
            continue;
        CHECK(memcmp(before + ((uint8_t *)&fabric.shard[s] - fabric.base), &fabric.shard[s], sizeof *fabric.shard) == 0,
              "the owner wrote shard %u's control", s);
        CHECK(memcmp(before + ((uint8_t *)sio_mailbox(&fabric, s, 0) - fabric.base), sio_mailbox(&fabric, s, 0), VCPUS * SIO_LINE) == 0,
              "the owner wrote shard %u's mailboxes", s);
        CHECK(memcmp(before + ((uint8_t *)sio_credit(&fabric, s, 0) - fabric.base), sio_credit(&fabric, s, 0), VCPUS * SIO_LINE) == 0,
              "the owner wrote shard %u's credits", s);
    }
    for (uint32_t s = 0; s < SHARDS; s++)
        CHECK(s == VICTIM || unchanged(before, sio_stat(&fabric, s, 0), RANGES * sizeof(struct sio_stat)),
              "the owner wrote shard %u's counters", s);
    check_histograms(before, VCPUS + VICTIM);
}

static void owner_among_liars(int racing)
{
    uint64_t random = 7, seq = 0, served = 0;
    struct sio_owner owner;
    struct sio_request request;
    pthread_t liar;
    int taken;

    fabric = make_fabric(VCPUS, SHARDS, RANGES, SLOTS);
    stop = 0;
    handled = 0;
    uint8_t *before = malloc(fabric.size);
    memcpy(before, fabric.base, fabric.size);
    for (uint32_t v = 0; v < VCPUS; v++)
        sio_credit(&fabric, VICTIM, v)->taken = lie(&random, ~0ull);
    CHECK(sio_owner_init(&owner, &fabric, SHARDS, -1) == -EINVAL, "it owns a shard that is not there");
    CHECK(sio_owner_init(&owner, &fabric, VICTIM, -1) == 0, "init");
    owner.posted_ranges = 1;
    owner.handlers[2] = (struct sio_handler){.kind = SIO_NATIVE, .space = SIO_MMIO, .base = BASE, .last = BASE + SPAN - 1,
                                             .native = guarded_device, .context = &fabric};
    if (racing)
        pthread_create(&liar, NULL, liar_as_client, NULL);
    for (uint32_t i = 0; i < ROUNDS || (racing && served < RACED); i++) {
        if (!racing)
            lie_to_owner(&random, &seq);
        served += sio_owner_scan(&owner);
        if (i % 64 == 0)
            sio_owner_flush(&owner);
        if (i % 128 == 0)
            sio_owner_turn(&owner, 0, -1);
        sio_recover_request(&fabric, VICTIM, i % (VCPUS + 1), &request, &taken);
    }
    if (racing) {
        sio_store_release(&stop, 1u);
        pthread_join(liar, NULL);
    }
    check_owner_stayed_home(before);
    CHECK(handled > 0 && served > 0, "nothing true was among the lies");
    CHECK(fabric.shard[VICTIM].malformed > 0, "no lie was counted");
    printf("hostile: an owner served %llu messages of %s, %llu reached a handler, %llu lies counted\n", (unsigned long long)served,
           racing ? "clients that change them meanwhile" : "lying clients", (unsigned long long)handled,
           (unsigned long long)fabric.shard[VICTIM].malformed);
    sio_owner_free(&owner);
    free(before);
    free(fabric.base);
}

/* ---- a header that lies ---------------------------------------------------------------------------------------------- */

static void header_that_lies(void)
{
    uint64_t random = 5, refused = 0;
    struct sio_fabric view;
    struct sio_header truth;

    fabric = make_fabric(1, 1, 4, 2);
    memcpy(&truth, fabric.base, sizeof truth);
    CHECK(sio_fabric_attach(&view, fabric.base, fabric.size) == 0, "a true header is refused");
    for (uint32_t i = 0; i < ROUNDS; i++) {
        memcpy(fabric.base, &truth, sizeof truth);
        fabric.base[random_next(&random) % 48] ^= (uint8_t)(1u << random_next(&random) % 8); /* beyond: padding */
        int status = sio_fabric_attach(&view, fabric.base, fabric.size);
        if (status) {
            refused++;
            CHECK(status == -EPROTO || status == -EPROTONOSUPPORT || status == -EBADMSG, "status %d", status);
        } else { /* another tick: every part still lies inside */
            CHECK(view.size <= fabric.size, "size");
            memset(sio_stat(&view, view.shards - 1, view.ranges - 1), 0, sizeof(struct sio_stat));
            memset(sio_hist(&view, view.vcpus + view.shards - 1, view.ranges - 1), 0, sizeof(struct sio_hist));
        }
    }
    free(fabric.base);
    CHECK(refused > 0, "no header was refused");
    printf("hostile: %llu damaged headers refused\n", (unsigned long long)refused);
}

int main(void)
{
    alarm(20); /* a hang ends here */
    client_among_liars();
    owner_among_liars(0);
    owner_among_liars(1);
    header_that_lies();
    return 0;
}
