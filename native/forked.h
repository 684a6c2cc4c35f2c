/* A fork of a shard's process has no part in its owner.
 *
 * Facts. fork(2) copies a handler's stack, too: a child that comes back from a handler goes on in the drain loop, over the same
 * shared segment, and answers what its parent answers. It is no child of the VMM's, so nobody ends it.
 *
 * Consequences. An owner has a mapping of the segment for itself, which no child inherits (MADV_DONTFORK). Where it was, the
 * child finds private memory, without handlers, before anything else runs there (pthread_atfork): a drain loop that goes on in
 * the child finds nothing to do, and returns.
 */
#ifndef SHARDIO_FORKED_H
#define SHARDIO_FORKED_H

#include "owner.h"

/* From now on, for an owner whose fabric is a mapping that nothing else in this process uses. 0 or -errno. */
int sio_owner_keep(struct sio_owner *owner);
/* Before the owner's memory or mapping goes. Harmless where it is not kept. */
void sio_owner_let_go(struct sio_owner *owner);

#endif
