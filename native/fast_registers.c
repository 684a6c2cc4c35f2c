/* A base class of devices, in C: the two accesses of a guest that prints by polling, answered without a frame of Python.
 *
 * Facts. A guest that prints reads a status register and writes a data register for each byte. A method in Python that decides
 * that an access is one of the two, and keeps the byte, takes twice as long as one that does nothing. A method in C takes less
 * than either, whether a shard calls it or Python.
 *
 * Consequences. `read` and `write` of the class know one register that reads a value at hand, and one whose bytes only gather.
 * The device says which and what, and moves both out of the way while such an access would have another effect. Everything
 * else goes to the methods `read_slowly` and `write_slowly` of the device.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "fast_registers.h"
#include "mark.h"
#include "pyint.h"

struct fast_registers {
    PyObject_HEAD
    long long status_at;    /* offset at which one byte reads `status`; -1: nowhere */
    long long status;
    long long data_at;      /* offset at which one written byte gathers; -1: nowhere */
    long long limit;        /* bytes that gather at most */
    long long slow_byte;         /* the byte that does not gather; -1: none */
    PyObject *gathered;     /* a bytearray */
    uint8_t *ring;          /* NULL: bytes gather in the bytearray; else here, from `head` to `tail` */
    uint64_t ring_mask;
    unsigned long long head, tail;
    uint64_t *mark;
    const struct sio_shard_control *control;
};

static PyObject *read_slowly, *write_slowly; /* interned names, as long as the process lives */

/* Whether `number` is `value`, which is nowhere where it is negative. */
static inline int is(PyObject *number, long long value)
{
    uint64_t found;
    return sio_compact_int(number, &found) && (long long)found == value && value >= 0;
}

static PyObject *fast_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    const struct fast_registers *r = (const struct fast_registers *)self;
    if (n != 2)
        return PyErr_Format(PyExc_TypeError, "read() takes offset and size, got %zd arguments", n);
    if (is(args[0], r->status_at) && is(args[1], 1))
        return PyLong_FromLongLong(r->status);
    PyObject *call[] = {self, args[0], args[1]};
    return PyObject_VectorcallMethod(read_slowly, call, 3, NULL);
}

/* The byte is there before it counts. */
static int gather_in_ring(struct fast_registers *r, uint8_t byte)
{
    if (r->tail - r->head >= (uint64_t)r->limit)
        return 0;
    r->ring[r->tail & r->ring_mask] = byte;
    sio_mark_set(r->mark, r->control, ++r->tail);
    return 1;
}

/* Zero: there is no room, or no memory. */
static int gather(struct fast_registers *r, uint8_t byte)
{
    if (r->ring)
        return gather_in_ring(r, byte);
    Py_ssize_t n = PyByteArray_GET_SIZE(r->gathered);
    if (n >= r->limit)
        return 0;
    if (PyByteArray_Resize(r->gathered, n + 1) != 0) {
        PyErr_Clear();
        return 0;
    }
    PyByteArray_AS_STRING(r->gathered)[n] = (char)byte;
    return 1;
}

static PyObject *fast_write(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct fast_registers *r = (struct fast_registers *)self;
    uint64_t value;
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "write() takes offset, size and value, got %zd arguments", n);
    if (is(args[0], r->data_at) && is(args[1], 1) && sio_compact_int(args[2], &value) &&
        (uint8_t)value != r->slow_byte && gather(r, (uint8_t)value))
        Py_RETURN_NONE;
    PyObject *call[] = {self, args[0], args[1], args[2]};
    return PyObject_VectorcallMethod(write_slowly, call, 4, NULL);
}

static PyObject *fast_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct fast_registers *r = (struct fast_registers *)type->tp_alloc(type, 0);
    if (!r)
        return NULL;
    r->status_at = r->data_at = r->slow_byte = -1;
    r->gathered = PyByteArray_FromStringAndSize(NULL, 0);
    if (!r->gathered)
        Py_CLEAR(r);
    return (PyObject *)r;
}

static void fast_dealloc(PyObject *self)
{
    Py_XDECREF(((struct fast_registers *)self)->gathered);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))fast_read, METH_FASTCALL, "`size` bytes from `offset`."},
    {"write", (PyCFunction)(void (*)(void))fast_write, METH_FASTCALL, "`size` bytes of `value` to `offset`."},
    {NULL},
};

static PyMemberDef members[] = {
    {"status_at", T_LONGLONG, offsetof(struct fast_registers, status_at), 0, "Where one byte reads `status`; -1: nowhere."},
    {"status", T_LONGLONG, offsetof(struct fast_registers, status), 0, "What is read there."},
    {"data_at", T_LONGLONG, offsetof(struct fast_registers, data_at), 0, "Where a written byte gathers; -1: nowhere."},
    {"limit", T_LONGLONG, offsetof(struct fast_registers, limit), 0, "How many bytes gather at most."},
    {"slow_byte", T_LONGLONG, offsetof(struct fast_registers, slow_byte), 0, "The byte that does not gather; -1: none."},
    {"head", T_ULONGLONG, offsetof(struct fast_registers, head), 0, "How many bytes have left the ring."},
    {"tail", T_ULONGLONG, offsetof(struct fast_registers, tail), 0, "How many have come into it."},
    {"gathered", T_OBJECT_EX, offsetof(struct fast_registers, gathered), READONLY, "What has gathered."},
    {NULL},
};

static PyTypeObject fast_registers_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "shardio._core.FastRegisters",
    .tp_basicsize = sizeof(struct fast_registers),
    .tp_dealloc = fast_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_methods = methods,
    .tp_members = members,
    .tp_new = fast_new,
};

void sio_fast_registers_keep(uintptr_t device, uint8_t *ring, uint64_t size, uint64_t *mark, const struct sio_shard_control *control)
{
    struct fast_registers *r = (struct fast_registers *)device;
    r->ring = size ? ring : NULL;
    r->ring_mask = size - 1;
    r->mark = mark;
    r->control = control;
}

int sio_fast_registers_into(uintptr_t dictionary)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int failed = PyType_Ready(&fast_registers_type) != 0;
    if (!failed && !read_slowly) {
        read_slowly = PyUnicode_InternFromString("read_slowly");
        write_slowly = PyUnicode_InternFromString("write_slowly");
    }
    failed = failed || !read_slowly || !write_slowly ||
             PyDict_SetItemString((PyObject *)dictionary, "FastRegisters", (PyObject *)&fast_registers_type) != 0;
    PyErr_Clear();
    PyGILState_Release(gil);
    return failed ? -ENOMEM : 0;
}
