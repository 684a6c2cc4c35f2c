/* A port's accesses as methods of a Python type, through the CPython C API.
 *
 * Facts. A call through cffi converts each argument by a generic routine, wants a buffer for what it returns by pointer, and gives the
 * interpreter up and takes it back: together several times as long as the access. A native handler answers within the first polls.
 *
 * Consequences. The methods take their arguments as the interpreter has them (METH_FASTCALL), and values go straight from and to ints
 * or the caller's buffer. The GIL is kept while the client polls, and given up before it yields or sleeps (struct sio_pause).
 * Whatever goes wrong is told by Python code: the subclass has `_open`, which attaches the client at the first access, and `_busy`,
 * `_invalid`, `_no_address`, `_no_string`, `_refuse` and `_unanswered`, which raise.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "client.h"
#include "compiler.h"
#include "pycalls.h"

#include <errno.h>
#include <string.h>

struct calls {
    PyObject_HEAD
    struct sio_client *client;  /* NULL: not this process's, or not yet */
    int busy;                   /* somebody is inside; read and written with the GIL held */
};

static PyObject *outcomes[3];   /* by enum sio_outcome */

/* ---- one at a time ------------------------------------------------------------------------------------------------- */

static int at_work(PyObject *self)
{
    PyObject *none = PyObject_CallMethod(self, "_busy", NULL);
    Py_XDECREF(none);
    return -1;
}

/* Non-zero: an exception is set. */
static NEVER_INLINE int open_port(struct calls *c)
{
    c->busy = 1;
    PyObject *none = PyObject_CallMethod((PyObject *)c, "_open", NULL);
    if (none && c->client) {
        Py_DECREF(none);
        return 0;
    }
    c->busy = 0;
    if (none)
        PyErr_SetString(PyExc_RuntimeError, "_open attached no client");
    Py_XDECREF(none);
    return -1;
}

static inline int enter(struct calls *c)
{
    if (unlikely(c->busy))
        return at_work((PyObject *)c);
    if (unlikely(!c->client))
        return open_port(c);
    c->busy = 1;
    return 0;
}

/* ---- the interpreter, while the client waits ----------------------------------------------------------------------- */

struct gil {
    struct sio_pause pause;
    PyThreadState *given;
};

static void give_up(struct sio_pause *pause)
{
    struct gil *gil = (struct gil *)pause;
    if (!gil->given)
        gil->given = PyEval_SaveThread();
}

/* One access: `client` stays what it is though the port may be closed meanwhile; its memory is the port's record, which is kept. */
#define ACCESS(c, call)                              \
    ({                                               \
        struct gil gil = {{give_up}, NULL};          \
        struct sio_client *client = (c)->client;     \
        client->waiter.pause = &gil.pause;           \
        int outcome_ = (int)(call);                  \
        client->waiter.pause = NULL;                 \
        if (unlikely(gil.given != NULL))             \
            PyEval_RestoreThread(gil.given);         \
        (c)->busy = 0;                               \
        outcome_;                                    \
    })

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) int convert(PyObject *object, uint64_t *value)
{
    PyObject *whole = PyNumber_Index(object);
    *value = whole ? PyLong_AsUnsignedLongLong(whole) : 0;
    Py_XDECREF(whole);
    return PyErr_Occurred() ? -1 : 0;
}

/* Non-zero: an exception is set, for what is no whole number of 64 bits. */
static inline int number(PyObject *object, uint64_t *value)
{
#if PY_VERSION_HEX < 0x030C0000
    if (likely(PyLong_Check(object) && (size_t)Py_SIZE(object) <= 1)) { /* 0, or one digit and positive */
        *value = Py_SIZE(object) ? ((PyLongObject *)object)->ob_digit[0] : 0;
        return 0;
    }
    if (likely(PyLong_Check(object) && Py_SIZE(object) == 2)) { /* most addresses of devices */
        digit *digits = ((PyLongObject *)object)->ob_digit;
        *value = (uint64_t)digits[1] << PyLong_SHIFT | digits[0];
        return 0;
    }
#endif
    if (likely(PyLong_CheckExact(object))) {
        *value = PyLong_AsUnsignedLongLong(object);
        return unlikely(*value == ~0ull) && PyErr_Occurred() ? -1 : 0;
    }
    return convert(object, value);
}

/* The same for a space, a width or a count. One that has not 32 bits is none that there is. */
static inline int small(PyObject *object, uint32_t *value)
{
    uint64_t whole;
    if (unlikely(number(object, &whole))) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        whole = ~0ull;
    }
    *value = whole > UINT32_MAX ? UINT32_MAX : (uint32_t)whole;
    return 0;
}

/* An address; `_no_address` raises for a whole number that is none. */
static inline int where(struct calls *c, PyObject *object, uint64_t *address)
{
    if (likely(!number(object, address)))
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    PyObject *none = PyObject_CallMethod((PyObject *)c, "_no_address", "O", object);
    Py_XDECREF(none);
    return -1;
}

static int wanted(const char *name, Py_ssize_t given, Py_ssize_t expected)
{
    if (likely(given == expected))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", name, expected, given);
    return -1;
}

/* ---- by value ------------------------------------------------------------------------------------------------------ */

/* There is no such access. */
static NEVER_INLINE PyObject *invalid(struct calls *c, uint64_t size)
{
    return PyObject_CallMethod((PyObject *)c, "_invalid", "K", (unsigned long long)size);
}

static PyObject *with_value(int outcome, PyObject *value)
{
    PyObject *both = value ? PyTuple_New(2) : NULL;
    if (!both) {
        Py_XDECREF(value);
        return NULL;
    }
    Py_INCREF(outcomes[outcome]);
    PyTuple_SET_ITEM(both, 0, outcomes[outcome]);
    PyTuple_SET_ITEM(both, 1, value);
    return both;
}

static PyObject *read_value(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    uint64_t address, value = 0;
    uint32_t space, size;
    if (wanted("read", n, 3) || small(args[0], &space) || where(c, args[1], &address) || small(args[2], &size) || enter(c))
        return NULL;
    int outcome = ACCESS(c, sio_client_read(client, space, address, size, &value));
    return unlikely(outcome < 0) ? invalid(c, size) : with_value(outcome, PyLong_FromUnsignedLongLong(value));
}

static PyObject *write_value(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    uint64_t address, value;
    uint32_t space, size;
    if (wanted("write", n, 4) || small(args[0], &space) || where(c, args[1], &address) || small(args[2], &size) ||
        number(args[3], &value) || enter(c))
        return NULL;
    int outcome = ACCESS(c, sio_client_write(client, space, address, size, value));
    return unlikely(outcome < 0) ? invalid(c, size) : Py_NewRef(outcomes[outcome]);
}

/* ---- by buffer ----------------------------------------------------------------------------------------------------- */

/* An object that has no bytes for the access: `_refuse` raises, and knows the exception that says why. */
static NEVER_INLINE int refused(struct calls *c, PyObject *data, int writable)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *none = PyObject_CallMethod((PyObject *)c, "_refuse", "Oi", data, writable);
    Py_XDECREF(none);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

static inline int bytes_of(struct calls *c, PyObject *data, int writable, Py_buffer *view)
{
    if (unlikely(PyObject_GetBuffer(data, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE)))
        return refused(c, data, writable);
    return 0;
}

/* The width of a buffer's access; one that is too long for the core is none either. */
static inline uint32_t width(const Py_buffer *view) { return view->len > 8 ? 9 : (uint32_t)view->len; }

/* What both spaces have in common: takes the buffer, makes the access, ends with None or an exception. */
static inline PyObject *by_buffer(struct calls *c, uint32_t space, int write, const char *name, PyObject *const *args, Py_ssize_t n)
{
    uint64_t address, value = 0;
    Py_buffer view;
    if (wanted(name, n, 2) || where(c, args[0], &address) || bytes_of(c, args[1], !write, &view))
        return NULL;
    uint32_t size = width(&view);
    Py_ssize_t length = view.len;
    int outcome;
    if (write && size <= 8)
        memcpy(&value, view.buf, size);
    if (unlikely(enter(c))) {
        PyBuffer_Release(&view);
        return NULL;
    }
    if (write)
        outcome = ACCESS(c, sio_client_write(client, space, address, size, value));
    else if ((outcome = ACCESS(c, sio_client_read(client, space, address, size, &value))) == SIO_ANSWERED)
        memcpy(view.buf, &value, size);
    PyBuffer_Release(&view);
    if (likely(outcome == SIO_ANSWERED))
        Py_RETURN_NONE;
    if (outcome < 0)
        return invalid(c, (uint64_t)length);
    return PyObject_CallMethod((PyObject *)c, "_unanswered", "OIKI", outcomes[outcome], (unsigned)space, (unsigned long long)address,
                               (unsigned)size);
}

static PyObject *pio_read(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    return by_buffer(c, SIO_PIO, 0, "pio_read", args, n);
}

static PyObject *pio_write(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    return by_buffer(c, SIO_PIO, 1, "pio_write", args, n);
}

static PyObject *mmio_read(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    return by_buffer(c, SIO_MMIO, 0, "mmio_read", args, n);
}

static PyObject *mmio_write(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    return by_buffer(c, SIO_MMIO, 1, "mmio_write", args, n);
}

/* ---- strings ------------------------------------------------------------------------------------------------------- */

static inline int sound_string(uint32_t space, uint32_t size, uint64_t length)
{
    return space <= SIO_MMIO && size - 1 < 8 && sio_width_mask[size] && length && length <= SIO_SIDE_BYTES && length % size == 0;
}

static PyObject *no_string(struct calls *c, uint64_t length, uint32_t size)
{
    return PyObject_CallMethod((PyObject *)c, "_no_string", "KI", (unsigned long long)length, (unsigned)size);
}

static int string(struct calls *c, uint32_t space, uint64_t address, uint32_t size, int write, uint32_t count, uint8_t *bytes)
{
    return ACCESS(c, ({
        enum sio_outcome outcome = sio_client_string(client, space, address, size, write, count, bytes);
        sio_client_complete(client);
        outcome;
    }));
}

static PyObject *read_string(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    uint64_t address;
    uint32_t space, size, count;
    if (wanted("read_string", n, 4) || small(args[0], &space) || where(c, args[1], &address) || small(args[2], &size) ||
        small(args[3], &count))
        return NULL;
    uint64_t length = (uint64_t)count * size;
    if (!sound_string(space, size, length))
        return no_string(c, length, size);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (!bytes)
        return NULL;
    memset(PyBytes_AS_STRING(bytes), 0, length); /* what an aborted one leaves */
    if (enter(c)) {
        Py_DECREF(bytes);
        return NULL;
    }
    return with_value(string(c, space, address, size, 0, count, (uint8_t *)PyBytes_AS_STRING(bytes)), bytes);
}

static PyObject *write_string(struct calls *c, PyObject *const *args, Py_ssize_t n)
{
    uint64_t address;
    uint32_t space, size;
    Py_buffer view;
    PyObject *outcome = NULL;
    if (wanted("write_string", n, 4) || small(args[0], &space) || where(c, args[1], &address) || small(args[2], &size) ||
        bytes_of(c, args[3], 0, &view))
        return NULL;
    if (!sound_string(space, size, (uint64_t)view.len))
        no_string(c, (uint64_t)view.len, size);
    else if (!enter(c))
        outcome = Py_NewRef(outcomes[string(c, space, address, size, 1, (uint32_t)view.len / size, view.buf)]);
    PyBuffer_Release(&view);
    return outcome;
}

/* ---- for the subclass ---------------------------------------------------------------------------------------------- */

/* The client at this address is asked from now on; 0: `_open` is, first. */
static PyObject *attach(struct calls *c, PyObject *address)
{
    uint64_t at;
    if (number(address, &at))
        return NULL;
    c->client = (struct sio_client *)(uintptr_t)at;
    Py_RETURN_NONE;
}

static PyObject *begin_alone(struct calls *c, PyObject *none)
{
    if (c->busy && at_work((PyObject *)c))
        return NULL;
    c->busy = 1;
    Py_RETURN_NONE;
}

static PyObject *end_alone(struct calls *c, PyObject *none)
{
    c->busy = 0;
    Py_RETURN_NONE;
}

#define FAST(name, function, signature, text) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, name "($self, " signature ", /)\n--\n\n" text}

static PyMethodDef methods[] = {
    FAST("read", read_value, "space, address, size",
         "Read `size` bytes (1, 2, 4, 8) in space 0 (PIO) or 1 (MMIO). Returns how it ended and the value, which is\n"
         "all-ones of the width where nothing answered."),
    FAST("write", write_value, "space, address, size, value",
         "Write `size` bytes. Returns at once on a posted range, else once a shard has answered: how it ended."),
    FAST("read_string", read_string, "space, address, size, count",
         "`rep ins`: `count` reads of `size` bytes at one address, in order; at most 4096 bytes in all."),
    FAST("write_string", write_string, "space, address, size, data",
         "`rep outs`: the buffer `data` written `size` bytes at a time to one address, in order; at most 4096 bytes in\n"
         "all."),
    FAST("pio_read", pio_read, "addr, data",
         "Fill the writable buffer `data` (1, 2 or 4 bytes) by a read of the port `addr`.\n\n"
         "Raises `DeviceNotFound` where no range holds the access, `AccessRefused` where its device could not answer,\n"
         "`InvalidBuffer`; `data` is untouched then."),
    FAST("pio_write", pio_write, "addr, data",
         "Write the buffer `data` (1, 2 or 4 bytes) to the port `addr`. Raises as `pio_read` does."),
    FAST("mmio_read", mmio_read, "addr, data",
         "Fill the writable buffer `data` (1, 2, 4 or 8 bytes) by a read at `addr`. Raises as `pio_read` does."),
    FAST("mmio_write", mmio_write, "addr, data",
         "Write the buffer `data` (1, 2, 4 or 8 bytes) at `addr`. Raises as `pio_read` does."),
    {"_attach", (PyCFunction)attach, METH_O, "Ask the client at this address from now on; 0: call `_open` first."},
    {"_begin", (PyCFunction)begin_alone, METH_NOARGS, "Nobody else may enter; calls `_busy` where somebody has."},
    {"_end", (PyCFunction)end_alone, METH_NOARGS, "The end of `_begin`."},
    {NULL},
};

int sio_py_calls(uintptr_t into, uintptr_t told)
{
    PyType_Slot slots[] = {{Py_tp_methods, methods}, {Py_tp_doc, "A port's accesses, one at a time."}, {0, NULL}};
    PyType_Spec spec = {
        .name = "shardio.fabric.calls.Calls",
        .basicsize = sizeof(struct calls),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
        .slots = slots,
    };
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *type = PyType_FromSpec(&spec);
    int status = type ? PyDict_SetItemString((PyObject *)into, "Calls", type) : -1;
    for (int i = 0; i < 3; i++)
        outcomes[i] = Py_NewRef(PyTuple_GET_ITEM((PyObject *)told, i));
    Py_XDECREF(type);
    PyErr_Clear();
    PyGILState_Release(gil);
    return status;
}
