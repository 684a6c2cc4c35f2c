/* Calls Python handlers from the drain loop, through the CPython C API. */
#ifndef SHARDIO_PYDISPATCH_H
#define SHARDIO_PYDISPATCH_H

#include "owner.h"

/* Gives an owner its Python half. `on_error`: id() of a callable (range, exception, write); the caller keeps it alive. */
int sio_py_attach(struct sio_owner *owner, uintptr_t on_error);
void sio_py_detach(struct sio_owner *owner);
/* Sets the handler of a range. `read`, `write`, `base_object`: id() of objects that the caller keeps alive until
 * sio_owner_clear_handler; `native` and `context`: addresses for SIO_NATIVE. -EINVAL for a range out of bounds. */
int sio_owner_set_handler(struct sio_owner *owner, uint32_t range, uint32_t kind, uint32_t space, uint32_t forms,
                          uint64_t base, uint64_t last, uintptr_t read, uintptr_t write, uintptr_t base_object,
                          uintptr_t native, uintptr_t context);
int sio_owner_clear_handler(struct sio_owner *owner, uint32_t range);
/* Takes the interpreter, until it is given up before a yield or a sleep, or by sio_py_give. */
void sio_py_take(struct sio_owner *owner);
void sio_py_give(struct sio_owner *owner);
/* What was called has raised: reported (pyfailed.h) as of this range. The interpreter is held. */
void sio_py_failed(struct sio_owner *owner, uint32_t range, int write);
/* sio_owner_turn, sio_owner_flush, sio_owner_scan with the interpreter given back at the end. Call without the GIL. */
enum sio_turn sio_py_turn(struct sio_owner *owner, uint64_t turn_ns, int epoll_fd);
void sio_py_flush(struct sio_owner *owner);
uint32_t sio_py_scan(struct sio_owner *owner);

#endif
