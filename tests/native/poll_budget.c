/* How long an owner polls before it yields: what it makes of the intervals and yields that it meets. */
#include "harness.h"

#include "pace.h"
#include "poll_budget.h"

static struct sio_fabric fabric;
static struct sio_poll_budget p;

static uint64_t us(uint64_t n) { return sio_ns_to_ticks(&fabric, n * 1000); }

/* Polls of the next wait that is no trial. */
static uint64_t polls(void)
{
    while ((p.waits + 1) % SIO_POLL_BUDGET_TRIAL == 0)
        sio_poll_budget_polls(&p);
    return sio_poll_budget_polls(&p);
}

static void follows_the_interval(void)
{
    sio_poll_budget_init(&p, &fabric);
    CHECK(polls() == fabric.spin_ticks, "it begins with %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(8), 0);
    CHECK(polls() == 2 * us(8), "requests 8 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    CHECK(polls() == us(20), "requests 15 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(1), 0);
    CHECK(polls() == fabric.spin_ticks, "requests 1 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    sio_poll_budget_found(&p, us(30), 0);
    CHECK(polls() == fabric.spin_ticks, "requests 30 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    sio_poll_budget_vain(&p);
    CHECK(polls() == fabric.spin_ticks, "no request: %llu", (unsigned long long)polls());
}

static void leaves_the_cpu_to_who_wants_it(void)
{
    sio_poll_budget_init(&p, &fabric);
    sio_poll_budget_found(&p, us(8), 0);
    sio_poll_budget_found(&p, us(8), 1);
    CHECK(polls() == fabric.spin_ticks, "a yield let somebody run: %llu", (unsigned long long)polls());
    for (uint32_t i = 1; i < SIO_YIELD_BIAS; i++)
        sio_poll_budget_found(&p, us(8), 1);
    CHECK(polls() == 0, "each yield lets somebody run: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(8), 0);
    CHECK(polls() == 2 * us(8), "nobody wants the CPU any more: %llu", (unsigned long long)polls());
}

static void tries_again(void)
{
    uint32_t least = 0, more = 0;
    sio_poll_budget_init(&p, &fabric);
    sio_poll_budget_found(&p, us(8), 0);
    for (uint32_t i = 0; i < 10 * SIO_POLL_BUDGET_TRIAL; i++)
        if (sio_poll_budget_polls(&p) == fabric.spin_ticks)
            least++;
        else
            more++;
    CHECK(least == 10 && more == 10 * (SIO_POLL_BUDGET_TRIAL - 1), "%u short ones, %u long ones", least, more);
    for (uint32_t i = 0; i < SIO_YIELD_BIAS; i++)
        sio_poll_budget_found(&p, us(8), 1);
    least = 0;
    for (uint32_t i = 0; i < 10 * SIO_POLL_BUDGET_TRIAL; i++)
        if (sio_poll_budget_polls(&p) == fabric.spin_ticks)
            least++;
    CHECK(least == 10, "%u polls where the CPU is shared", least);
}

/* How many polls, how long a spin and a rest and which yields are quick follow the host, between limits. */
static void follows_the_host(void)
{
    struct sio_fabric f = {.ticks_to_ns_32 = 1ull << 32}; /* a tick is a nanosecond */
    sio_pace_follow(&f, 64 * 25, 400);
    CHECK(f.polls == 64 && f.spin_ticks == 3000 && f.quick_yield_ticks == 1200 && f.rest == 1, "pause 25 ns: %u polls", f.polls);
    sio_pace_follow(&f, 64 * 50, 800);
    CHECK(f.polls == 32 && f.spin_ticks == 4800 && f.quick_yield_ticks == 1500 && f.rest == 1, "pause 50 ns: %u polls", f.polls);
    sio_pace_follow(&f, 64 * 14, 400);
    CHECK(f.rest == 3, "pause 14 ns: %u pauses of rest", f.rest);
    sio_pace_follow(&f, 0, 0);
    CHECK(f.polls == 512 && f.spin_ticks == 3000 && f.quick_yield_ticks == 1000 && f.rest == 16, "a header of zeros: %u polls", f.polls);
    sio_pace_follow(&f, ~0u, ~0u);
    CHECK(f.polls == 8 && f.spin_ticks == 5000 && f.quick_yield_ticks == 1500 && f.rest == 1, "a header of ones: %u polls", f.polls);
    uint32_t pauses, yield;
    sio_pace_measure(&fabric, &pauses, &yield);
    CHECK(pauses > 0 && pauses < sio_ns_to_ticks(&fabric, 100000), "64 pauses take %u ticks", pauses);
    CHECK(yield > 0 && yield != ~0u, "a yield takes %u ticks", yield);
}

int main(void)
{
    fabric = make_fabric(1, 1, 1, 4);
    follows_the_interval();
    leaves_the_cpu_to_who_wants_it();
    tries_again();
    follows_the_host();
    free(fabric.base);
    printf("poll_budget: an owner polls as long as its requests are apart, where nobody else wants the CPU\n");
    return 0;
}
