/* What the programs of this folder share: checks that end the program, a fabric in private memory, a random stream. */
#ifndef SHARDIO_HARNESS_H
#define SHARDIO_HARNESS_H

#include "fabric.h"
#include "route.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define CHECK(condition, ...)                                                                              \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "%s:%d: %s failed: ", __FILE__, __LINE__, #condition);                         \
            fprintf(stderr, __VA_ARGS__);                                                                  \
            fputc('\n', stderr);                                                                           \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)

static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* On the heap, so that AddressSanitizer sees a step over the segment's end. */
static inline struct sio_fabric make_fabric(uint32_t vcpus, uint32_t shards, uint32_t ranges, uint32_t posted_slots)
{
    struct sio_fabric fabric;
    uint64_t size = sio_fabric_size(vcpus, shards, ranges, posted_slots);
    void *base = aligned_alloc(SIO_PAGE, size);
    CHECK(size && base, "no memory for a fabric of %llu bytes", (unsigned long long)size);
    __builtin_memset(base, 0, size);
    CHECK(sio_fabric_create(&fabric, base, vcpus, shards, ranges, posted_slots) == 0, "the fabric cannot be laid out");
    return fabric;
}

#endif
