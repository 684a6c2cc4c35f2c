/* Calls Python handlers from the drain loop.
 *
 * Facts. cffi calls into the core without the GIL. Taking it for every access would cost more than the access; keeping it
 * while the loop yields or sleeps would stop the shard's other threads. The vectorcall protocol with a slot to spare in
 * front of the arguments calls a bound method without allocating a frame of arguments; small ints come from a cache.
 *
 * Consequences. The GIL is taken when the first Python handler is called, held while requests keep coming within the tight
 * polls and the spin, and given up before a yield, a sleep or the return. The memoryviews that handlers of the
 * (base, offset, data) form get are made once, over a private copy of the value: a slot's content is copied once and
 * what a handler sees does not change under it. What they show is valid during the call only; the memory behind them is an
 * object's, so that a view which a device keeps stays a view, of whatever is there, for as long as it is kept.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "pydispatch.h"
#include "pyfailed.h"
#include "pyint.h"

#include <stdlib.h>

#define SMALL 256u

struct sio_py {
    uint64_t *value;           /* what the memoryviews show: 8 bytes of `memory` */
    Py_buffer memory;          /* a bytearray's, which cannot be resized while this is held */
    PyObject *readable[4];     /* writable views of 1, 2, 4, 8 bytes, for read handlers to fill */
    PyObject *written[4];      /* read-only ones */
    PyObject *sizes[4];
    PyObject *small[SMALL];    /* ints */
    PyObject *on_error;
    struct sio_py_sites sites; /* where handlers failed: reported once each */
    PyGILState_STATE gil;
    int held;
};

void sio_py_take(struct sio_owner *o)
{
    struct sio_py *py = o->runtime;
    if (!py->held) {
        py->gil = PyGILState_Ensure();
        py->held = 1;
    }
}

void sio_py_give(struct sio_owner *o)
{
    struct sio_py *py = o->runtime;
    if (py && py->held) {
        py->held = 0;
        PyGILState_Release(py->gil);
    }
}

/* 8-byte views are shared by strings and single accesses alike; log2 of the width picks one. */
static inline int width_index(uint32_t size) { return __builtin_ctz(size); }

/* `args[0]` is to spare: a bound method's object goes there, and its function is called without the detour. */
static inline PyObject *call(PyObject *callable, PyObject **args, size_t n)
{
    if (__builtin_expect(PyMethod_Check(callable), 1)) {
        PyObject *function = PyMethod_GET_FUNCTION(callable);
        args[0] = PyMethod_GET_SELF(callable);
        if (__builtin_expect(PyFunction_Check(function), 1)) /* its own entry: PyObject_Vectorcall would look it up */
            return ((PyFunctionObject *)function)->vectorcall(function, args, n + 1, NULL);
        return PyObject_Vectorcall(function, args, n + 1, NULL);
    }
    return PyObject_Vectorcall(callable, args + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* A new reference. */
static inline PyObject *number(const struct sio_py *py, uint64_t value)
{
    if (__builtin_expect(value < SMALL, 1)) {
        Py_INCREF(py->small[value]);
        return py->small[value];
    }
    return PyLong_FromUnsignedLongLong(value);
}

/* The low 64 bits of what a handler returned. Non-zero: no whole number, or one whose __index__ raised. */
static inline int as_value(PyObject *result, uint64_t *value)
{
    if (sio_compact_int(result, value))
        return 0;
    if (__builtin_expect(!PyIndex_Check(result), 0))
        return 1;
    *value = PyLong_AsUnsignedLongLongMask(result);
    return *value == (unsigned long long)-1 && PyErr_Occurred();
}

static PyObject *call_register(struct sio_py *py, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write,
                               uint64_t *value, uint32_t range)
{
    PyObject *args[4] = {NULL, number(py, offset), py->sizes[width_index(size)], NULL};
    PyObject *result = NULL;
    if (!args[1])
        return NULL;
    if (!write)
        result = call(h->read, args, 2);
    else if ((args[3] = number(py, *value))) {
        result = call(h->write, args, 3);
        Py_DECREF(args[3]);
    }
    Py_DECREF(args[1]);
    if (result && !write && __builtin_expect(as_value(result, value), 0)) {
        if (!PyErr_Occurred())
            sio_py_refuse(&py->sites, h->read, offset, size, result, range);
        Py_CLEAR(result);
    }
    return result;
}

/* A new view of the first bytes of the value, `1 << width` of them; NULL: no memory. */
static PyObject *new_view(struct sio_py *py, int write, int width)
{
    PyObject *all = PyMemoryView_FromObject(py->memory.obj);
    PyObject *view = all ? PySequence_GetSlice(all, 0, 1 << width) : NULL;
    Py_XDECREF(all);
    if (view && write)
        Py_SETREF(view, PyObject_CallMethod(view, "toreadonly", NULL));
    return view;
}

static inline int released(PyObject *view) { return ((PyMemoryViewObject *)view)->flags & _Py_MEMORYVIEW_RELEASED; }

/* A handler released its view (`with data:` does): the next access of that width gets another. Without memory for one it
 * fails, and the access is refused. */
static __attribute__((noinline, cold)) void renew(struct sio_py *py, int write, int width)
{
    PyObject **view = write ? &py->written[width] : &py->readable[width], *fresh, *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback); /* it may have raised, too */
    fresh = new_view(py, write, width);
    if (fresh) {
        Py_DECREF(*view);
        *view = fresh;
    }
    PyErr_Restore(type, value, traceback);
}

static PyObject *call_view(struct sio_py *py, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write,
                           uint64_t *value)
{
    int width = width_index(size);
    PyObject *args[4] = {NULL, h->base_object, number(py, offset), write ? py->written[width] : py->readable[width]};
    if (!args[2])
        return NULL;
    *py->value = write ? *value : 0;
    PyObject *result = call(write ? h->write : h->read, args, 3);
    *value = *py->value;
    Py_DECREF(args[2]);
    if (__builtin_expect(released(args[3]), 0))
        renew(py, write != 0, width);
    return result;
}

static int call_python(struct sio_owner *o, const struct sio_handler *h, uint64_t offset, uint32_t size, uint32_t write,
                       uint64_t *value)
{
    struct sio_py *py = o->runtime;
    o->called++;
    sio_py_take(o);
    uint32_t view = h->forms & (write ? SIO_WRITE_VIEW : SIO_READ_VIEW), range = (uint32_t)(h - o->handlers);
    PyObject *result = view ? call_view(py, h, offset, size, write, value) : call_register(py, h, offset, size, write, value, range);
    if (__builtin_expect(!result, 0)) {
        sio_py_report(&py->sites, py->on_error, range, write != 0);
        return 1;
    }
    Py_DECREF(result);
    return 0;
}

void sio_py_failed(struct sio_owner *o, uint32_t range, int write)
{
    struct sio_py *py = o->runtime;
    sio_py_report(&py->sites, py->on_error, range, write);
}

void sio_py_detach(struct sio_owner *o)
{
    struct sio_py *py = o->runtime;
    if (!py)
        return;
    o->runtime = NULL;
    o->python = NULL;
    o->pause = NULL;
    PyGILState_STATE gil = PyGILState_Ensure();
    for (int i = 0; i < 4; i++) {
        Py_XDECREF(py->readable[i]);
        Py_XDECREF(py->written[i]);
        Py_XDECREF(py->sizes[i]);
    }
    for (uint32_t i = 0; i < SMALL; i++)
        Py_XDECREF(py->small[i]);
    sio_py_forget(&py->sites);
    PyBuffer_Release(&py->memory); /* lives on in the views that devices keep */
    Py_XDECREF(py->on_error);
    PyGILState_Release(gil);
    free(py);
}

/* Non-zero: no memory for one of the objects. */
static int make_objects(struct sio_py *py)
{
    PyObject *memory = PyByteArray_FromStringAndSize(NULL, sizeof *py->value);
    int whole = memory && PyObject_GetBuffer(memory, &py->memory, PyBUF_WRITABLE) == 0;
    Py_XDECREF(memory);
    if (!whole)
        return 1;
    py->value = py->memory.buf; /* what Python's allocators give is aligned for any number */
    *py->value = 0;
    for (int i = 0; i < 4; i++) {
        py->readable[i] = new_view(py, 0, i);
        py->written[i] = new_view(py, 1, i);
        py->sizes[i] = PyLong_FromLong(1 << i);
        whole &= py->readable[i] && py->written[i] && py->sizes[i];
    }
    for (uint32_t i = 0; i < SMALL; i++)
        whole &= (py->small[i] = PyLong_FromUnsignedLong(i)) != NULL;
    return !whole;
}

int sio_py_attach(struct sio_owner *o, uintptr_t on_error)
{
    struct sio_py *py = calloc(1, sizeof *py);
    if (!py)
        return -ENOMEM;
    PyGILState_STATE gil = PyGILState_Ensure();
    int failed = make_objects(py);
    py->on_error = (PyObject *)on_error;
    Py_INCREF(py->on_error);
    PyErr_Clear();
    PyGILState_Release(gil);
    o->runtime = py;
    o->python = call_python;
    o->pause = sio_py_give;
    if (failed) {
        sio_py_detach(o);
        return -ENOMEM;
    }
    return 0;
}

int sio_owner_set_handler(struct sio_owner *o, uint32_t range, uint32_t kind, uint32_t space, uint32_t forms,
                          uint64_t base, uint64_t last, uintptr_t read, uintptr_t write, uintptr_t base_object,
                          uintptr_t native, uintptr_t context)
{
    struct sio_py *py = o->runtime;
    if (range >= o->fabric.ranges || last < base || kind > SIO_PYTHON || space > SIO_MMIO)
        return -EINVAL;
    if (py && py->sites.n) { /* another device may fail at the same place: that is worth telling again */
        PyGILState_STATE gil = PyGILState_Ensure();
        sio_py_forget(&py->sites);
        PyGILState_Release(gil);
    }
    o->handlers[range] = (struct sio_handler){
        .kind = kind,
        .space = (uint16_t)space,
        .forms = (uint16_t)forms,
        .base = base,
        .last = last,
        .base_object = (void *)base_object,
    };
    if (kind == SIO_NATIVE) {
        o->handlers[range].native = (sio_native_handler)native;
        o->handlers[range].context = (void *)context;
    } else {
        o->handlers[range].read = (void *)read;
        o->handlers[range].write = (void *)write;
    }
    return 0;
}

int sio_owner_clear_handler(struct sio_owner *o, uint32_t range)
{
    if (range >= o->fabric.ranges)
        return -EINVAL;
    o->handlers[range].kind = SIO_NO_HANDLER;
    return 0;
}

enum sio_turn sio_py_turn(struct sio_owner *o, uint64_t turn_ns, int epoll_fd)
{
    enum sio_turn turn = sio_owner_turn(o, turn_ns, epoll_fd);
    sio_py_give(o);
    return turn;
}

void sio_py_flush(struct sio_owner *o)
{
    sio_owner_flush(o);
    sio_py_give(o);
}

uint32_t sio_py_scan(struct sio_owner *o)
{
    uint32_t n = sio_owner_scan(o);
    sio_py_give(o);
    return n;
}
