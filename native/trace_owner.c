/* Writes an owner's trace records. */
#include "trace_owner.h"

static struct sio_trace_ring *ring_of(struct sio_owner *o) { return sio_trace_ring(&o->fabric, o->fabric.vcpus + o->shard); }

void sio_trace_service(struct sio_owner *o, const struct sio_service *s)
{
    if (!sio_trace_wants(&o->fabric, s->range))
        return;
    uint32_t outcome = s->failed ? SIO_TRACE_REFUSED : SIO_TRACE_ANSWERED;
    struct sio_trace_words words = {.begin = s->begin, .end = s->end, .address = s->address, .value = s->value,
                                    .message = s->message & SIO_PENDING_N, .who = sio_trace_who(s->range, s->vcpu, o->shard),
                                    .what = sio_trace_what(SIO_TRACE_SERVICE, s->size, s->flags, outcome, s->count)};
    sio_trace_put(ring_of(o), &words);
}

static void add_moment(struct sio_owner *o, uint32_t kind, uint32_t range, uint64_t address, uint64_t value)
{
    uint64_t now = sio_ticks();
    struct sio_trace_words words = {.begin = now, .end = now, .address = address, .value = value,
                                    .who = sio_trace_who(range, SIO_TRACE_NO_VCPU, o->shard),
                                    .what = sio_trace_what(kind, 0, 0, 0, 0)};
    sio_trace_put(ring_of(o), &words);
}

void sio_trace_line(struct sio_owner *o, uint32_t gsi, int high) { add_moment(o, SIO_TRACE_RAISED, SIO_MAX_RANGES, gsi, high != 0); }

void sio_trace_rung(struct sio_owner *o, uint32_t range, uint64_t doorbell, uint64_t times)
{
    if (sio_trace_wants(&o->fabric, range))
        add_moment(o, SIO_TRACE_RUNG, range, doorbell, times);
}
