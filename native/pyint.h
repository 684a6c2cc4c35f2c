/* Whole numbers of Python that are small enough to be looked at in place. */
#ifndef SHARDIO_PYINT_H
#define SHARDIO_PYINT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* Non-zero where `object` is an int that its header holds whole: then `*value` is it, negative ones as 64 bits of two's
 * complement. Which ints those are differs between versions of CPython; the small ones of registers are in all of them. */
static inline int sio_compact_int(PyObject *object, uint64_t *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (__builtin_expect(PyLong_CheckExact(object) && PyUnstable_Long_IsCompact((PyLongObject *)object), 1)) {
        *value = (uint64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
        return 1;
    }
#else
    if (__builtin_expect(PyLong_CheckExact(object) && (size_t)Py_SIZE(object) <= 1, 1)) { /* 0, or one digit and positive */
        *value = Py_SIZE(object) ? ((PyLongObject *)object)->ob_digit[0] : 0;
        return 1;
    }
#endif
    return 0;
}

#endif
