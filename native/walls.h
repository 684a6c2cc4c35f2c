/* What a shard's process gives up before a device's code runs in it: capabilities(7), and privileges through execve(2).
 *
 * Both belong to a thread and are inherited by what it starts afterwards. Neither can be taken back.
 */
#ifndef SHARDIO_WALLS_H
#define SHARDIO_WALLS_H

#include <linux/capability.h>
#include <stdint.h>

/* From now on no execve(2) gives this thread privileges that it lacks (PR_SET_NO_NEW_PRIVS). 0 or -errno. */
int sio_no_new_privileges(void);
/* Keeps of this thread's permitted capabilities those in `keep` (bit n: capability n), which become effective, and no others.
 * `dropped`: those that it had and has no more. 0 or -errno. */
int sio_capabilities_keep(uint64_t keep, uint64_t *dropped);

#endif
