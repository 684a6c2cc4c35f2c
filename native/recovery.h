/* What the VMM does in a dead owner's place. Only after that owner is reaped: then its words are the VMM's to write. */
#ifndef SHARDIO_RECOVERY_H
#define SHARDIO_RECOVERY_H

#include "fabric.h"
#include "mailbox.h"

/* A vCPU's request as it stands in a mailbox. `taken`: the owner had taken it when it died. 0: there is none. */
int sio_recover_request(const struct sio_fabric *fabric, uint32_t shard, uint32_t vcpu, struct sio_request *request, int *taken);
/* Answers it: all-ones or dropped. */
void sio_recover_refuse(const struct sio_fabric *fabric, uint32_t shard, uint32_t vcpu, uint64_t state);
/* Every request of a dead owner has been decided about: a successor that dies before it takes anything must not count as another
 * victim of the same request. */
void sio_recover_settled(const struct sio_fabric *fabric, uint32_t shard);
/* A new owner may start: its epoch. */
uint64_t sio_recover_epoch(const struct sio_fabric *fabric, uint32_t shard);
/* What a dead owner's journal says it took of a ring, where the client had posted `posted`, is believed only if it can be so. */
void sio_recover_taken(const struct sio_fabric *fabric, uint32_t shard, uint32_t vcpu, uint64_t posted);
/* Nobody will own this shard again: what is posted to it counts as taken, so that no client waits for room. */
void sio_recover_discard_posted(const struct sio_fabric *fabric, uint32_t shard, uint32_t vcpu, uint64_t upto);

#endif
