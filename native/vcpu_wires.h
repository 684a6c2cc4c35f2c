/* Interrupt lines of a machine whose PIC and IOAPIC are devices of a shard: between an exit and the next entry, a vCPU worker
 * writes what became of them to the controllers' wires (wires.h), and takes what the PIC has for the boot processor.
 *
 * Facts. A line moves in three ways: with the reply of an access, in a shard's word of levels, or (outside an access) by an
 * eventfd that the VMM watches, which tells a worker here. Several workers may write the wires at a time, each with the levels
 * that it saw, so an older view may arrive last.
 *
 * Consequences. Who has written looks again: if a level has moved since, it writes once more, so that the last view to arrive
 * is the true one. All this happens after an exit is complete: its journal is free for the messages to the controllers, and
 * `wire_step` tells a fresh worker which of them it speaks of. A worker that is killed may repeat a pulse, never lose one.
 */
#ifndef SHARDIO_VCPU_WIRES_H
#define SHARDIO_VCPU_WIRES_H

#include "worker.h"

enum { NO_WIRE, WIRE_PIC, WIRE_IOAPIC, WIRE_INTA };

#define VECTOR_TAKEN 0x100u

/* Delivers a vector of the PIC's at the next entry, by the vCPU's kind. Harmless where a dead predecessor has done so. */
static void interrupt(struct sio_vcpu *v, uint32_t vector);

/* Lines that are high: what each shard says of those that it was granted. SP-WIRES */
static uint32_t levels_now(const struct sio_vcpu *v)
{
    const struct sio_fabric *f = &v->client.fabric;
    uint32_t high = 0;
    for (uint32_t s = 0; s < f->shards; s++)
        high |= (uint32_t)sio_load_acquire(&f->shard[s].levels) & sio_load_relaxed(&v->client.granted[s]);
    return high;
}

/* The boot processor alone is interrupted by the PIC. Whether it is to be. */
static int look_at_output(struct sio_vcpu *v)
{
    v->output = v->client.vcpu == 0 && (levels_now(v) & SIO_LINE_EXTINT);
    return (int)v->output;
}

/* Begins a message to a controller, or a pair of them. */
static void begin_wire(struct sio_vcpu *v, uint32_t step)
{
    v->vector = 0;
    sio_store_release(&v->wire_step, step);
}

/* A message whose step is named before it is sent and passed only once it is forgotten: a fresh worker resumes it, or sends it
 * again. */
static enum sio_outcome send_lines(struct sio_vcpu *v)
{
    uint64_t wire = v->wire;
    if (v->wire_step == WIRE_PIC) {
        if (v->wired & SIO_WIRED_PIC) {
            if (sio_client_access(&v->client, SIO_MMIO, SIO_PIC_WIRES + SIO_WIRES_LINES, 8, 1, &wire) == SIO_ABORTED)
                return SIO_ABORTED;
            sio_client_complete(&v->client);
        }
        sio_store_release(&v->wire_step, WIRE_IOAPIC);
    }
    if (v->wired & SIO_WIRED_IOAPIC) {
        if (sio_client_access(&v->client, SIO_MMIO, SIO_IOAPIC_WIRES + SIO_WIRES_LINES, 8, 1, &wire) == SIO_ABORTED)
            return SIO_ABORTED;
        sio_client_complete(&v->client);
    }
    if ((levels_now(v) & SIO_WIRED_MASK) != v->wire >> 32)
        v->client.lines |= SIO_LINE_MOVED;
    sio_store_release(&v->wire_step, NO_WIRE);
    return SIO_ANSWERED;
}

/* Takes what replies and the VMM have told of lines. */
static enum sio_outcome tell_controllers(struct sio_vcpu *v)
{
    uint32_t told = sio_load_acquire(&v->lines) | v->client.lines; /* SP-WIRES */
    int send = (told & (SIO_WIRED_MASK | SIO_LINE_MOVED)) != 0;
    if (send) {
        v->wire = (told & SIO_WIRED_MASK) | (uint64_t)(levels_now(v) & SIO_WIRED_MASK) << 32;
        begin_wire(v, WIRE_PIC);
    }
    look_at_output(v);
    /* From here on a fresh worker finds them in `wire` and `output`. What the VMM tells again meanwhile came before that is sent. */
    v->client.lines = 0;
    sio_clear_bits(&v->lines, told);
    return send ? send_lines(v) : SIO_ANSWERED;
}

/* The INTA cycle, unless a predecessor has made it, then the vector's delivery. */
static enum sio_outcome take_vector(struct sio_vcpu *v)
{
    uint64_t vector = 0;
    if (!v->vector) {
        enum sio_outcome outcome = sio_client_access(&v->client, SIO_MMIO, SIO_PIC_WIRES + SIO_WIRES_INTA, 4, 0, &vector);
        if (outcome == SIO_ABORTED)
            return SIO_ABORTED;
        v->vector = outcome == SIO_ANSWERED ? (uint32_t)(vector & 0xff) | VECTOR_TAKEN : 0;
    }
    sio_client_complete(&v->client);
    if (v->vector)
        interrupt(v, v->vector & 0xff);
    sio_store_release(&v->wire_step, NO_WIRE);
    return SIO_ANSWERED;
}

/* What a dead predecessor was at: its message may be out, or answered. */
static enum sio_outcome resume_wires(struct sio_vcpu *v) { return v->wire_step == WIRE_INTA ? take_vector(v) : send_lines(v); }

static inline int lines_moved(const struct sio_vcpu *v)
{
    return v->wired && (v->client.lines | sio_load_relaxed(&v->lines) | v->output);
}

/* Before an entry. ABORTED: told to stop. */
static __attribute__((noinline)) enum sio_outcome serve_wires(struct sio_vcpu *v)
{
    /* A wire's reply may tell of lines in turn: the PIC's output, most of all. */
    for (int round = 0; round < 4 && (v->client.lines | sio_load_relaxed(&v->lines)); round++)
        if (tell_controllers(v) == SIO_ABORTED)
            return SIO_ABORTED;
    if (look_at_output(v) && v->run->ready_for_interrupt_injection) {
        begin_wire(v, WIRE_INTA);
        if (take_vector(v) == SIO_ABORTED)
            return SIO_ABORTED;
        look_at_output(v);
    }
    v->run->request_interrupt_window = (uint8_t)v->output;
    return SIO_ANSWERED;
}

#endif
