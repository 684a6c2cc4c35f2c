/* A port of a shardio dispatcher, for vCPU loops in C, C++, Rust or whatever else calls C.
 *
 * A dispatcher (`shardio.Dispatcher`) has one port for each vCPU. The process that opens it makes that vCPU's accesses: they are
 * routed to the device that has the address, and answered by the shard that has the device. Compile `shardio.c`, which lies
 * beside this header, into the program; both are where `shardio.get_include()` says, and both are C11 and C++11:
 *
 *     inc=$(python -c 'import shardio; print(shardio.get_include())')
 *     cc -O2 -I"$inc" -c "$inc/shardio.c" && cc -O2 -I"$inc" loop.c shardio.o -o loop
 *
 * The program and the dispatcher must be of the same version of shardio: a port of another one is refused (-EPROTONOSUPPORT).
 * A port has one user at a time: one process, and in it one thread at a time. A fork of the process must not use it.
 * Functions return 0 or more for what they say, or a negative errno value; `shardio_error` has words for both.
 */
#ifndef SHARDIO_SHARDIO_H
#define SHARDIO_SHARDIO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shardio_port;

/* Address spaces. */
#define SHARDIO_PIO 0u
#define SHARDIO_MMIO 1u

/* How an access ended. */
#define SHARDIO_ANSWERED 0     /* by the device; a posted write: it is on its way */
#define SHARDIO_NOT_ANSWERED 1 /* nobody has the address, or the device refused: a read gives all-ones, a write is dropped */
#define SHARDIO_ABORTED 2      /* the dispatcher is closed, or gives this vCPU up: end the loop */

/* Opens the port that `text` describes: `Port.text` in Python, with descriptors that this process has inherited
 * (`subprocess.Popen(..., pass_fds=port.descriptors)`). The descriptors become the port's. On an error `*port` is NULL and the
 * descriptors are still the caller's.
 *
 * -EINVAL: `text` describes no port; -EBADF: a descriptor is not open; -EPROTO: there is no port behind one; -EPROTONOSUPPORT:
 * one of another version of shardio; -EBUSY: another process, or this one, uses the port; -ETIMEDOUT: a process that died
 * inside an access had it, and its shard does not answer; -EOPNOTSUPP: membarrier(2) is refused here and is not where the
 * dispatcher is; -ENOMEM. */
int shardio_open(struct shardio_port **port, const char *text);

/* Opens the port that `Port.send` in Python sends on the other end of a connected AF_UNIX socket, SOCK_SEQPACKET or SOCK_STREAM:
 * for processes that inherit nothing. Waits for it. The socket stays the caller's. Errors as above; -EPIPE: the other end was
 * closed. */
int shardio_open_from(struct shardio_port **port, int socket);
/* The same of a SOCK_SEQPACKET socket that listens at `path`. Errors also as connect(2) has them. */
int shardio_open_path(struct shardio_port **port, const char *path);

/* Gives the port up, so that another process may open it. NULL is ignored. */
void shardio_close(struct shardio_port *port);

/* Number of the vCPU whose port it is. */
unsigned shardio_vcpu(const struct shardio_port *port);

/* One access of `size` bytes: 1, 2, 4 or 8. A value is in the low bytes, little-endian; a read sets what is above to 0. Accesses
 * of one port to one shard happen in order. -EINVAL: no such width or space; then nothing was done. */
int shardio_read(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, uint64_t *value);
/* Waits until the device has had the write, unless its range is posted (`posted=True`): then it goes into the shard's ring, and
 * this returns at once, or when there is room. A read of the same shard comes after all that was posted to it. */
int shardio_write(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, uint64_t value);

/* `count` elements of `size` bytes at one address (`rep ins`, `rep outs`), at most 4096 bytes in all: -EINVAL beyond. */
int shardio_read_string(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, void *bytes, size_t count);
int shardio_write_string(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, const void *bytes,
                         size_t count);

/* What a function returned, in words. */
const char *shardio_error(int status);

#ifdef __cplusplus
}
#endif

#endif
