/* A port: the client of a vCPU that runs in any process, in memory which that process shares with the dispatcher.
 *
 * The dispatcher reads the client's journal (what is in flight, for which shard, how much was posted) and nothing else of it; the
 * pointers in it belong to the process that uses the port. `user` says which that is. A process that dies leaves its number
 * there: whoever exchanges it for another word finishes the access in flight before the port is used again.
 */
#ifndef SHARDIO_PORT_H
#define SHARDIO_PORT_H

#include "client.h"

#define SIO_PORT_FREE 0u
#define SIO_PORT_FINISHING 0xffffffffu /* somebody finishes what a dead user left */

struct sio_port {
    struct sio_client client;   /* writer: the process that uses the port, or who settles for it */
    uint32_t stop;              /* writer: the dispatcher. 1: every wait ends, no further access begins */
    uint32_t user;              /* pid of the process that uses it, SIO_PORT_FREE or SIO_PORT_FINISHING */
};

/* Makes `to` the user where `from` is. Returns the user before: equal to `from` where this took effect. */
uint32_t sio_port_exchange(struct sio_port *port, uint32_t from, uint32_t to);
uint32_t sio_port_user(const struct sio_port *port);
/* Ends every wait of the port, in whatever process; `vcpu`: whose port it is. */
void sio_port_stop(struct sio_port *port, const struct sio_fabric *fabric, uint32_t vcpu);
/* For the process that is its user from now on: makes the client usable here. Doorbells are set afterwards. */
void sio_port_attach(struct sio_port *port, const struct sio_fabric *fabric);
/* Finishes what a dead user had in flight, without waiting: its answer is nobody's, its posted write counts if it was published.
 * Zero: the shard still has the request, ask again. `fabric`: the segment as it is mapped in this process. */
int sio_client_finish(struct sio_client *client, const struct sio_fabric *fabric);

#endif
