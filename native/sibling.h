/* A fork whose parent is the caller's parent: how a template of shards makes them (shardio/shard/template.py). */
#ifndef SHARDIO_SIBLING_H
#define SHARDIO_SIBLING_H

/* In the caller: the new process's id, or -errno; -ENOSYS where the C library's record of the thread's id could not be kept true.
 * 0 in the new process, where Python has been told as after os.fork. The caller must have one thread. */
int sio_fork_sibling(void);

#endif
