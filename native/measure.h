/* The loops of the benchmark harness: what must not be in an interpreter while it is timed.
 *
 * A block is `n` operations timed as a whole, one in `every` of them also by itself, so that reading the clock weighs on
 * neither. The longest time from one such sample to the next tells whether the scheduler gave a CPU away meanwhile. The floor is
 * the bare ping-pong: two processes, one line, a release store each way, one `pause` a poll.
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
    const uint64_t *addresses;  /* taken in turn */
    uint32_t address_mask;      /* how many there are, a power of two, less one */
    uint32_t sampled;           /* out: how many of `samples` are filled */
    uint64_t *samples;          /* out: ticks of single operations; room for n / every + 1 */
    uint64_t failed;            /* out: accesses that were not answered */
    uint64_t done;              /* out: operations that ended in time */
    uint64_t gap;               /* out: longest time from one sample to the next, in ticks */
    uint64_t until;             /* accesses only: stop at this tick, whatever `n`; 0: never */
};

/* The floor, near side: returns ticks for the block. `line`: a cache line that both processes map. */
uint64_t sio_measure_ping(uint64_t *line, struct sio_measure_block *block, uint64_t patience_ticks);
/* The floor, far side: answers `n` pings; returns how many came in time. */
uint32_t sio_measure_echo(uint64_t *line, uint32_t n, uint64_t patience_ticks);
/* Accesses through a client, as a vCPU worker makes them: returns ticks for the block. */
uint64_t sio_measure_access(struct sio_client *client, struct sio_measure_block *block);
/* A native device: reads give the value written last. `context`: a uint64_t. */
int sio_measure_device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value);
/* Its address, for `native_handler`. */
uintptr_t sio_measure_device_address(void);
/* Ticks of `n` pauses. */
uint64_t sio_measure_pauses(uint32_t n);
/* The clock of the blocks. */
uint64_t sio_measure_ticks(void);
/* Holds the CPU for this many ticks: a guest between two exits. */
void sio_measure_guest(uint64_t ticks);

#endif
