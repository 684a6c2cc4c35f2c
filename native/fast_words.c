/* A base class of devices, in C: a block of bytes that a guest moves through one register, a word an access.
 *
 * Facts. A boot loader moves a disk in this way, 256 accesses a sector. What an access does is the same for all of a block but
 * its last word: the next bytes are moved, and where the block outlives the process, a mark says how far it has come.
 *
 * Consequences. `read` and `write` of the class do that at offset 0, for accesses of 2 and 4 bytes that end before a limit which
 * the device sets. Everything else goes to the methods `read_slowly` and `write_slowly` of the device.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "fast_words.h"
#include "mark.h"
#include "pyint.h"

#include <string.h>

#define AT_BITS 20u /* of `at` in the mark's number: serial, where the access began, where it ended */

struct fast_words {
    PyObject_HEAD
    long long at;        /* the next byte of the block */
    long long quick_in;  /* quick reads end here at the latest; 0: none is quick */
    long long quick_out; /* quick writes likewise */
    long long serial;    /* of the block, for the mark */
    Py_buffer block;     /* held: whoever has the object behind it can neither free nor resize it */
    uint64_t *mark;
    const struct sio_shard_control *control;
};

static PyObject *read_slowly, *write_slowly; /* interned names, as long as the process lives */

/* The bytes that this access moves the quick way, `*size` of them; NULL: it is the device's. The device's numbers are not trusted
 * further than the block reaches. */
static inline uint8_t *quick(const struct fast_words *w, PyObject *offset, PyObject *width, long long limit, uint64_t *size)
{
    uint64_t at;
    if (!sio_compact_int(offset, &at) || at != 0 || !sio_compact_int(width, size) || (*size != 2 && *size != 4))
        return NULL;
    if (w->at < 0 || w->at > w->block.len - (long long)*size || w->at + (long long)*size > limit)
        return NULL;
    return (uint8_t *)w->block.buf + w->at;
}

/* A word that was written is there before it counts. */
static inline void moved(struct fast_words *w, uint64_t size)
{
    uint64_t before = (uint64_t)w->at, place = (uint64_t)w->serial << AT_BITS | before;
    w->at += (long long)size;
    if (w->mark)
        sio_mark_set(w->mark, w->control, place << AT_BITS | (uint64_t)w->at);
}

static PyObject *words_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct fast_words *w = (struct fast_words *)self;
    uint64_t size;
    uint32_t value = 0;
    if (n != 2)
        return PyErr_Format(PyExc_TypeError, "read() takes offset and size, got %zd arguments", n);
    const uint8_t *from = quick(w, args[0], args[1], w->quick_in, &size);
    if (!from) {
        PyObject *call[] = {self, args[0], args[1]};
        return PyObject_VectorcallMethod(read_slowly, call, 3, NULL);
    }
    memcpy(&value, from, size);
    moved(w, size);
    return PyLong_FromUnsignedLong(value);
}

static PyObject *words_write(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct fast_words *w = (struct fast_words *)self;
    uint64_t size;
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "write() takes offset, size and value, got %zd arguments", n);
    uint8_t *to = PyLong_CheckExact(args[2]) ? quick(w, args[0], args[1], w->quick_out, &size) : NULL;
    if (!to) {
        PyObject *call[] = {self, args[0], args[1], args[2]};
        return PyObject_VectorcallMethod(write_slowly, call, 4, NULL);
    }
    uint32_t value = (uint32_t)PyLong_AsUnsignedLongLongMask(args[2]);
    memcpy(to, &value, size);
    moved(w, size);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))words_read, METH_FASTCALL, "`size` bytes from `offset`."},
    {"write", (PyCFunction)(void (*)(void))words_write, METH_FASTCALL, "`size` bytes of `value` to `offset`."},
    {NULL},
};

static PyMemberDef members[] = {
    {"at", T_LONGLONG, offsetof(struct fast_words, at), 0, "The next byte of the block."},
    {"quick_in", T_LONGLONG, offsetof(struct fast_words, quick_in), 0, "Where quick reads end at the latest; 0: none is quick."},
    {"quick_out", T_LONGLONG, offsetof(struct fast_words, quick_out), 0, "Where quick writes end at the latest."},
    {"serial", T_LONGLONG, offsetof(struct fast_words, serial), 0, "Of the block: what a successor knows it by."},
    {NULL},
};

static void words_dealloc(PyObject *self)
{
    PyBuffer_Release(&((struct fast_words *)self)->block);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject fast_words_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "shardio._core.FastWords",
    .tp_basicsize = sizeof(struct fast_words),
    .tp_dealloc = words_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_methods = methods,
    .tp_members = members,
    .tp_new = PyType_GenericNew,
};

int sio_fast_words_show(uintptr_t device, uintptr_t block)
{
    struct fast_words *w = (struct fast_words *)device;
    PyGILState_STATE gil = PyGILState_Ensure();
    int failed = 0;
    PyBuffer_Release(&w->block);
    if (block)
        failed = PyObject_GetBuffer((PyObject *)block, &w->block, PyBUF_WRITABLE) != 0;
    PyErr_Clear();
    PyGILState_Release(gil);
    return failed ? -EINVAL : 0;
}

void sio_fast_words_keep(uintptr_t device, uint64_t *mark, const struct sio_shard_control *control)
{
    struct fast_words *w = (struct fast_words *)device;
    w->control = control;
    w->mark = mark;
}

int sio_fast_words_into(uintptr_t dictionary)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int failed = PyType_Ready(&fast_words_type) != 0;
    if (!failed && !read_slowly) {
        read_slowly = PyUnicode_InternFromString("read_slowly");
        write_slowly = PyUnicode_InternFromString("write_slowly");
    }
    failed = failed || !read_slowly || !write_slowly ||
             PyDict_SetItemString((PyObject *)dictionary, "FastWords", (PyObject *)&fast_words_type) != 0;
    PyErr_Clear();
    PyGILState_Release(gil);
    return failed ? -ENOMEM : 0;
}
