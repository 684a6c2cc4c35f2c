/* What becomes of a Python handler that fails: the first failure at each place in its code is reported, the others are not.
 *
 * Facts. To describe an exception takes a hundred times as long as a handler does, and a guest that runs into one may do so a
 * million times a second.
 * Consequence. A place, the code object and the instruction that raised, is looked up before anything is described.
 */
#ifndef SHARDIO_PYFAILED_H
#define SHARDIO_PYFAILED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#define SIO_PY_SITES 128u /* a power of two; half of them are used */

struct sio_py_sites {
    uint32_t n;
    struct {
        PyObject *place;       /* owned, so that no other object takes its address; NULL: none */
        int instruction;
        uint32_t handler;      /* range << 1 | write */
    } site[SIO_PY_SITES];      /* found by hashing */
};

/* The GIL is held in all of these. */

/* Ends the exception that a handler of `range` raised, if there is one, and calls on_error(range, exception, write) if it is the
 * first from its place. */
void sio_py_report(struct sio_py_sites *sites, PyObject *on_error, uint32_t range, int write);
/* A read handler returned what is no whole number: raises InvalidResult, unless that has been reported of this handler. */
void sio_py_refuse(struct sio_py_sites *sites, PyObject *read, uint64_t offset, uint32_t size, PyObject *result, uint32_t range);
void sio_py_forget(struct sio_py_sites *sites);

#endif
