/* A shard's event loop below asyncio: it sleeps here, and doorbells of devices are delivered here.
 *
 * Facts. A ring that goes through asyncio's selector, its readers and handles costs tens of bytecodes and a dozen objects before the
 * device is called; that is as long as the wake-up itself where the caches are cold. A look at epoll costs half of a yield.
 *
 * Consequences. The callables of doorbells are kept beside their descriptors, and are called from where epoll_wait returns: in the
 * sleep of the event loop, and in the drain loop, which looks at epoll while it lingers. Whatever else is ready is asyncio's.
 */
#ifndef SHARDIO_BELLS_H
#define SHARDIO_BELLS_H

#include "owner.h"

#define SIO_NO_RANGE 0x1fffffffu
#define SIO_RUNG 2              /* what on_error is told in place of a direction */

enum sio_waited { SIO_WAITED_TURN = 1, SIO_WAITED_EVENTS = 2 };

/* From now on `ring`, id() of a callable that the caller keeps alive, is called with `index` when eventfd `fd`, a non-blocking one,
 * was rung; `*count` grows by how often. It is the device's that has `range` (SIO_NO_RANGE: nobody knows), for a trace and for whom
 * on_error is told of. `epoll_fd`: the event loop's. 0 or -errno. */
int sio_py_add_bell(struct sio_owner *owner, int epoll_fd, int fd, uintptr_t ring, uint32_t index, uint64_t *count, uint32_t range);
/* No more. What was rung before stays in the eventfd. */
void sio_py_remove_bell(struct sio_owner *owner, int epoll_fd, int fd);
/* Sleeps until something is ready on `epoll_fd`, for at most `timeout_ms` (-1: for ever). Delivers doorbells, and makes a turn where
 * the owner's own was rung. Returns bits: a turn is due (SIO_WAITED_TURN), something that is the event loop's is ready. */
int sio_py_wait(struct sio_owner *owner, uint64_t turn_ns, int epoll_fd, int timeout_ms);

#endif
