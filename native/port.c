/* Who uses a port, and what becomes of an access whose process died. */
#include "port.h"

#include "client_parts.h"

uint32_t sio_port_exchange(struct sio_port *port, uint32_t from, uint32_t to)
{
    uint32_t found;
    do {
        if (sio_swap_if(&port->user, from, to)) /* SP-PORT */
            return from;
        found = sio_port_user(port);
    } while (found == from);
    return found;
}

uint32_t sio_port_user(const struct sio_port *port) { return sio_load_acquire(&port->user); /* SP-PORT */ }

void sio_port_stop(struct sio_port *port, const struct sio_fabric *f, uint32_t vcpu)
{
    sio_publish(&port->stop, 1u); /* SP-COMMAND */
    sio_wake_client(&f->vcpu[vcpu]);
}

void sio_port_attach(struct sio_port *port, const struct sio_fabric *f)
{
    sio_client_attach(&port->client, f);
    port->client.waiter.membarrier = f->membarrier;
    port->client.waiter.abort = &port->stop;
    port->client.waiter.abort_value = 1;
}

int sio_client_finish(struct sio_client *c, const struct sio_fabric *f)
{
    uint64_t pending = sio_load_acquire(&c->pending);
    uint32_t kind = (uint32_t)(pending >> 62), shard = (uint32_t)(pending >> 56) & 63;

    if (kind == SIO_PENDING_SYNC && shard < f->shards) {
        uint64_t n = pending & SIO_PENDING_N, state = sio_load_acquire(&sio_mailbox(f, shard, c->vcpu)->state); /* SP-REPLY */
        if (state == SIO_STATE(n, SIO_REQUEST))
            return 0;
        c->shard[shard].seq = n;
    }
    if (kind == SIO_PENDING_POSTED && shard < f->shards) {
        uint64_t position = position_named(pending, c->shard[shard].posted);
        const struct sio_posted *slot = sio_posted_slot(f, sio_ring(f, shard, c->vcpu), position);
        if (sio_load_relaxed(&slot->lap) != sio_posted_lap(f, position))
            position--; /* never published: sio_client_after counts it, so begin one lower */
        sio_store_release(&c->shard[shard].posted, position + 1);
        pending = 0;
    }
    if (kind == SIO_PENDING_SYNC || kind == SIO_PENDING_NONE)
        pending = c->resting;
    if (pending && (pending >> 56 & 63) < f->shards)
        note_posted(c, pending);
    c->resting = 0;
    sio_store_release(&c->pending, 0); /* SP-QUIESCE */
    return 1;
}
