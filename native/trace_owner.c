/* Writes an owner's trace records. */
#include "trace_owner.h"

static void add_record(struct sio_owner *o, struct sio_trace_record *r)
{
    r->shard = (uint16_t)o->shard;
    sio_trace_put(sio_trace_ring(&o->fabric, o->fabric.vcpus + o->shard), r);
}

void sio_trace_service(struct sio_owner *o, const struct sio_service *s)
{
    if (!sio_trace_wants(&o->fabric, s->range))
        return;
    struct sio_trace_record r = {
        .begin = s->begin,
        .end = s->end,
        .address = s->address,
        .value = s->value,
        .message = s->message & SIO_PENDING_N,
        .range = s->range,
        .vcpu = (uint16_t)s->vcpu,
        .count = (uint16_t)s->count,
        .kind = SIO_TRACE_SERVICE,
        .size = (uint8_t)s->size,
        .flags = (uint8_t)s->flags,
        .outcome = s->failed ? SIO_TRACE_REFUSED : SIO_TRACE_ANSWERED,
    };
    add_record(o, &r);
}

static struct sio_trace_record now(uint32_t kind, uint64_t address, uint64_t value)
{
    uint64_t ticks = sio_ticks();
    return (struct sio_trace_record){.kind = (uint8_t)kind, .begin = ticks, .end = ticks, .address = address, .value = value,
                                     .range = SIO_MAX_RANGES, .vcpu = SIO_TRACE_NO_VCPU};
}

void sio_trace_line(struct sio_owner *o, uint32_t gsi, int high)
{
    struct sio_trace_record r = now(SIO_TRACE_RAISED, gsi, high != 0);
    add_record(o, &r);
}

void sio_trace_rung(struct sio_owner *o, uint32_t range, uint64_t doorbell, uint64_t times)
{
    struct sio_trace_record r = now(SIO_TRACE_RUNG, doorbell, times);
    r.range = range;
    if (sio_trace_wants(&o->fabric, range))
        add_record(o, &r);
}
