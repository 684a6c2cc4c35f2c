/* An owner's trace records: how long its handlers ran, and what it raised. */
#ifndef SHARDIO_TRACE_OWNER_H
#define SHARDIO_TRACE_OWNER_H

#include "owner.h"
#include "trace.h"

static inline int sio_owner_traced(const struct sio_owner *o)
{
    return __builtin_expect(sio_load_relaxed(&o->control->traced) != 0, 0);
}

/* What a handler did with a message, and when. */
struct sio_service {
    uint32_t vcpu;      /* SIO_TRACE_NO_VCPU: nobody knows */
    uint32_t range;
    uint64_t message;   /* the request's sequence number, or the position in the posted ring */
    uint64_t address;
    uint64_t value;
    uint32_t size;
    uint32_t count;
    uint32_t flags;
    int failed;
    uint64_t begin;     /* ticks */
    uint64_t end;       /* with the reply */
};

void sio_trace_service(struct sio_owner *owner, const struct sio_service *service);
/* An interrupt line or message (its GSI) goes up, or down. From any thread. */
void sio_trace_line(struct sio_owner *owner, uint32_t gsi, int high);
/* A doorbell of the device that has this range was rung. From any thread. */
void sio_trace_rung(struct sio_owner *owner, uint32_t range, uint64_t doorbell, uint64_t times);

#endif
