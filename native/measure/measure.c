/* The loops of the benchmark harness. */
#include "measure.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#define POLLS_PER_LOOK 65536u

/* Polls until *line is `wanted`; `pause`: one pause a poll. Zero: it never came. */
static inline __attribute__((always_inline)) int await(const uint64_t *line, uint64_t wanted, uint64_t patience, int pause)
{
    uint64_t start = 0;
    for (uint32_t polls = 1; sio_load_acquire(line) != wanted; polls++) {
        if (pause)
            sio_relax();
        if (__builtin_expect(polls % POLLS_PER_LOOK == 0, 0)) {
            if (start == 0)
                start = sio_ticks();
            else if (sio_ticks() - start > patience)
                return 0;
        }
    }
    return 1;
}

/* Even: the far side's answer; odd: the near side's call. */
static inline __attribute__((always_inline)) uint64_t ping(uint64_t *line, struct sio_measure_block *b, uint64_t patience, int pause)
{
    uint64_t turn = sio_load_relaxed(line), begin = sio_ticks(), last = begin;
    uint32_t i;
    b->sampled = 0;
    b->gap = 0;
    for (i = 0; i < b->n; i++) {
        int sample = (i & (b->every - 1)) == 0;
        uint64_t start = sample ? (last = sio_measure_gap(b, last)) : 0;
        sio_store_release(line, turn + 1);
        if (!await(line, turn + 2, patience, pause))
            break;
        turn += 2;
        if (sample)
            b->samples[b->sampled++] = sio_ticks() - start;
    }
    b->done = i;
    return sio_measure_gap(b, last) - begin;
}

uint64_t sio_measure_ping(uint64_t *line, struct sio_measure_block *b, uint64_t patience, int pause)
{
    return pause ? ping(line, b, patience, 1) : ping(line, b, patience, 0);
}

static inline __attribute__((always_inline)) uint32_t echo(uint64_t *line, uint32_t n, uint64_t patience, int pause)
{
    /* An odd line is a call that came before this loop. */
    uint64_t turn = sio_load_relaxed(line) & ~1ull;
    for (uint32_t i = 0; i < n; i++, turn += 2) {
        if (!await(line, turn + 1, patience, pause))
            return i;
        sio_store_release(line, turn + 2);
    }
    return n;
}

uint32_t sio_measure_echo(uint64_t *line, uint32_t n, uint64_t patience, int pause)
{
    return pause ? echo(line, n, patience, 1) : echo(line, n, patience, 0);
}

/* The accesses [from, end) of a block; returns how many failed. All that the loop needs is in registers: where a posted write is
 * measured, a load or a store more would show. */
static __attribute__((noinline)) uint32_t burst(struct sio_client *client, const struct sio_measure_block *b, uint32_t from,
                                                uint32_t end)
{
    const uint64_t *addresses = b->addresses;
    uint32_t space = b->space, size = b->size, mask = b->address_mask, failed = 0;
    uint64_t data;
    if (b->write)
        for (uint32_t i = from; i != end; i++)
            failed += sio_client_write(client, space, addresses[i & mask], size, i) != SIO_ANSWERED;
    else if (b->untraced)
        for (uint32_t i = from; i != end; i++)
            failed += sio_untraced_read(client, space, addresses[i & mask], size, &data) != SIO_ANSWERED;
    else
        for (uint32_t i = from; i != end; i++)
            failed += sio_client_read(client, space, addresses[i & mask], size, &data) != SIO_ANSWERED;
    return failed;
}

uint64_t sio_measure_access(void *client, struct sio_measure_block *b)
{
    uint64_t begin = sio_ticks(), last = begin;
    uint32_t i = 0;
    b->sampled = 0;
    b->gap = 0;
    b->failed = 0;
    while (i < b->n) {
        uint64_t start = last = sio_measure_gap(b, last);
        if (b->until && start > b->until && i != 0)
            break;
        b->failed += burst(client, b, i, i + 1);
        b->samples[b->sampled++] = sio_ticks() - start;
        uint32_t end = b->n - i < b->every ? b->n : i + b->every;
        b->failed += burst(client, b, i + 1, end);
        i = end;
    }
    b->done = i;
    return sio_measure_gap(b, last) - begin;
}

/* Reads give 0. Zero: an exit that is no access. */
static int answered(struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_IO) {
        if (run->io.direction == KVM_EXIT_IO_IN)
            memset((uint8_t *)run + run->io.data_offset, 0, (size_t)run->io.size * run->io.count);
        return 1;
    }
    if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
        memset(run->mmio.data, 0, sizeof(run->mmio.data));
    return run->exit_reason == KVM_EXIT_MMIO;
}

uint64_t sio_measure_exits(int vcpu, void *run, struct sio_measure_block *b)
{
    uint64_t begin = sio_ticks(), last = begin;
    b->done = 0;
    b->gap = 0;
    while (b->done < b->n) {
        if (ioctl(vcpu, KVM_RUN, 0) == 0) {
            if (!answered(run))
                break;
            b->done++;
        } else if (errno != EINTR && errno != EAGAIN)
            break;
        last = sio_measure_gap(b, last);
    }
    return last - begin;
}

static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    uint64_t *held = context;
    if (write)
        *held = *value;
    else
        *value = *held;
    return 0;
}

uintptr_t sio_measure_device_address(void) { return (uintptr_t)device; }

uint64_t sio_measure_pauses(uint32_t n)
{
    uint64_t begin = sio_ticks();
    for (uint32_t i = 0; i < n; i++)
        sio_relax();
    return sio_ticks() - begin;
}

uint64_t sio_measure_ticks(void) { return sio_ticks(); }

#ifdef __x86_64__
#define TRAP_FLAG 0x100

static int64_t steps; /* of the one thread that is counted */
static int (*between_steps)(void *);
static void *between_argument;

/* The kernel takes the trap flag back for the handler, and gives it again to what was interrupted. */
static void stepped(int number)
{
    steps++;
    if (between_steps)
        between_steps(between_argument);
}

int64_t sio_measure_step(int on, uintptr_t between, uintptr_t argument)
{
    if (!on) {
        __asm__ volatile("subq $128, %%rsp; pushfq; andq %0, (%%rsp); popfq; addq $128, %%rsp" ::"i"(~TRAP_FLAG) : "cc", "memory");
        return steps;
    }
    struct sigaction action = {.sa_handler = stepped};
    if (sigaction(SIGTRAP, &action, NULL) < 0)
        return -errno;
    steps = 0;
    between_steps = (int (*)(void *))between;
    between_argument = (void *)argument;
    __asm__ volatile("subq $128, %%rsp; pushfq; orq %0, (%%rsp); popfq; addq $128, %%rsp" ::"i"(TRAP_FLAG) : "cc", "memory");
    return 0;
}
#else
int64_t sio_measure_step(int on, uintptr_t between, uintptr_t argument) { return -ENOSYS; }
#endif

void sio_measure_leave(void) {}
