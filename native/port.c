/* Who uses a port. */
#include "port.h"

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
