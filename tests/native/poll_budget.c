/* How long an owner polls before it yields: what it makes of the intervals and yields that it meets. */
#include "harness.h"

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
    CHECK(polls() == us(3), "it begins with %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(8), 0);
    CHECK(polls() == 2 * us(8), "requests 8 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    CHECK(polls() == us(20), "requests 15 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(1), 0);
    CHECK(polls() == us(3), "requests 1 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    sio_poll_budget_found(&p, us(30), 0);
    CHECK(polls() == us(3), "requests 30 us apart: %llu", (unsigned long long)polls());
    sio_poll_budget_found(&p, us(15), 0);
    sio_poll_budget_vain(&p);
    CHECK(polls() == us(3), "no request: %llu", (unsigned long long)polls());
}

static void leaves_the_cpu_to_who_wants_it(void)
{
    sio_poll_budget_init(&p, &fabric);
    sio_poll_budget_found(&p, us(8), 0);
    sio_poll_budget_found(&p, us(8), 1);
    CHECK(polls() == us(3), "a yield let somebody run: %llu", (unsigned long long)polls());
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
        if (sio_poll_budget_polls(&p) == us(3))
            least++;
        else
            more++;
    CHECK(least == 10 && more == 10 * (SIO_POLL_BUDGET_TRIAL - 1), "%u short ones, %u long ones", least, more);
    for (uint32_t i = 0; i < SIO_YIELD_BIAS; i++)
        sio_poll_budget_found(&p, us(8), 1);
    least = 0;
    for (uint32_t i = 0; i < 10 * SIO_POLL_BUDGET_TRIAL; i++)
        if (sio_poll_budget_polls(&p) == us(3))
            least++;
    CHECK(least == 10, "%u polls where the CPU is shared", least);
}

int main(void)
{
    fabric = make_fabric(1, 1, 1, 4);
    follows_the_interval();
    leaves_the_cpu_to_who_wants_it();
    tries_again();
    free(fabric.base);
    printf("poll_budget: an owner polls as long as its requests are apart, where nobody else wants the CPU\n");
    return 0;
}
