/* KVM's coalesced ring, read by the one shard whose devices have coalesced ranges.
 *
 * Facts. A write to a registered zone goes into one ring per VM, in the kernel, without an exit. When the ring is full the
 * write is an exit like any other. The ring is a page that every vCPU descriptor can map; any process may, only ioctls are
 * the VMM's. Nobody is told that something was written.
 *
 * Consequences. The shard maps the page through the descriptor of a vCPU that never runs, so that it sees no vCPU's kvm_run
 * page, and is the ring's only reader: no lock, and its position is in the page, where a successor finds it. It drains the
 * ring before it serves any request: what a vCPU wrote before that request is in the ring by then, so program order holds,
 * and a write that found the ring full comes after those that filled it. A vCPU posts to that shard only while the ring is empty,
 * and waits otherwise: the shard drains the posted rings before this one, and both kinds of write keep their order. It looks at
 * the ring now and then besides. `first`
 * is moved before the handler runs: a write is applied zero or one time.
 */
#ifndef SHARDIO_COALESCED_H
#define SHARDIO_COALESCED_H

#include "owner.h"

#define SIO_MAX_COALESCED 64u

struct sio_coalesced {
    struct kvm_coalesced_mmio_ring *ring;  /* writers: the kernel `last` and the slots, this shard `first` */
    uint32_t slots;
    uint32_t first;                        /* this shard's private cursor */
    uint32_t ranges;
    uint16_t range[SIO_MAX_COALESCED];     /* whose handlers are asked, in no order */
};

/* `page`: the mapped ring, of `size` bytes. 0 or -EINVAL. */
int sio_coalesced_init(struct sio_coalesced *c, void *page, uint64_t size);
/* A range that has, or has no longer, a zone. 0, -ENOSPC, -ENOENT. */
int sio_coalesced_add(struct sio_coalesced *c, uint32_t range);
int sio_coalesced_drop(struct sio_coalesced *c, uint32_t range);
/* Gives the owner its ring (NULL: none). */
void sio_owner_coalesced(struct sio_owner *owner, struct sio_coalesced *c);

#endif
