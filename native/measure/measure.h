/* The loops of the benchmark harness: what must not be in an interpreter while it is timed. They are a module of their own,
 * shardio._measure, with a copy of the client's code: the library itself holds nothing for the benchmarks' sake.
 *
 * A block is `n` operations timed as a whole, one in `every` of them also by itself, so that reading the clock weighs on
 * neither. The longest time from one such sample to the next tells whether the scheduler gave a CPU away meanwhile. The floor is
 * the bare ping-pong: two processes, one line, a release store each way, a `pause` a poll or none.
 * Every wait ends after `SIO_MEASURE_PATIENCE_NS` without progress: a peer that died must not leave the other spinning.
 */
#ifndef SHARDIO_MEASURE_H
#define SHARDIO_MEASURE_H

#include "client.h"
#include "owner.h"

#define SIO_MEASURE_PATIENCE_NS 2000000000ull

struct sio_measure_block {
    uint32_t n;
    uint32_t every;             /* a power of two */
    uint32_t space;
    uint32_t size;
    uint32_t write;
    uint32_t untraced;          /* reads, by a client that nobody can trace */
    const uint64_t *addresses;  /* taken in turn */
    uint32_t address_mask;      /* how many there are, a power of two, less one */
    uint32_t sampled;           /* out: how many of `samples` are filled */
    uint64_t *samples;          /* out: ticks of single operations; room for n / every + 1 */
    uint64_t failed;            /* out: accesses that were not answered */
    uint64_t done;              /* out: operations that ended in time */
    uint64_t gap;               /* out: longest time from one sample to the next, in ticks */
    uint64_t until;             /* accesses only: stop at this tick, whatever `n`, after `every` of them; 0: never */
};

/* Notes how long it is since the last sample; returns now. */
static inline uint64_t sio_measure_gap(struct sio_measure_block *b, uint64_t last)
{
    uint64_t now = sio_ticks();
    if (now - last > b->gap)
        b->gap = now - last;
    return now;
}

/* The floor, near side: returns ticks for the block. `line`: a cache line that both processes map; `pause`: one a poll. */
uint64_t sio_measure_ping(uint64_t *line, struct sio_measure_block *block, uint64_t patience_ticks, int pause);
/* The floor, far side: answers `n` pings; returns how many came in time. */
uint32_t sio_measure_echo(uint64_t *line, uint32_t n, uint64_t patience_ticks, int pause);
/* Accesses through a client (a struct sio_client), as a vCPU worker makes them: returns ticks for the block. */
uint64_t sio_measure_access(void *client, struct sio_measure_block *block);
/* As sio_client_read (untraced.c). */
int sio_untraced_read(struct sio_client *client, uint32_t space, uint64_t address, uint32_t size, uint64_t *data);
/* The floor of a real exit: runs a vCPU of KVM and answers each of its accesses right here. Returns ticks; `done` is less than
 * `n` where the guest made another exit or KVM_RUN failed. `run`: its struct kvm_run. */
uint64_t sio_measure_exits(int vcpu, void *run, struct sio_measure_block *block);
/* The same for the software CPU: runs flat 32-bit code in Unicorn, from its shared library, and answers each IN right here. One
 * code a process. */
uint64_t sio_measure_software(const char *library, const void *code, uint32_t size, struct sio_measure_block *block);
/* For `native_handler`: the address of a device whose reads give the value written last; its context is a uint64_t. */
uintptr_t sio_measure_device_address(void);
/* Ticks of `n` pauses. */
uint64_t sio_measure_pauses(uint32_t n);
/* The clock of the blocks. */
uint64_t sio_measure_ticks(void);
/* Counts this thread's instructions: begins with `on`; without, ends and returns how many there were since, or -ENOSYS where
 * the processor is none that can. `between`: the address of a function that is called with `argument` after each, uncounted. */
int64_t sio_measure_step(int on, uintptr_t between, uintptr_t argument);
/* Sleeps until eventfd `bell`, which `epoll_fd` watches, is rung, and answers it by the number of the moment: for ever. */
void sio_measure_answer(int epoll_fd, int bell, const uint32_t *number, uint32_t *answer);
/* Rings `irqfd` `gap` ticks from now; returns how many later a guest's handler has counted, or `patience`. */
uint64_t sio_measure_raise(int irqfd, const uint32_t *count, uint64_t gap, uint64_t patience);
/* Holds the CPU for this many ticks: a guest between two exits. */
void sio_measure_guest(uint64_t ticks);

#endif
