/* What an access of a device costs whose state outlives its shard: its beginning, the state that it leaves, its end.
 *
 * Facts. There are two copies of a state (shardio/persistent.py tells why). Every access of such a device goes through here, and
 * the same steps as methods in Python take longer than most handlers.
 *
 * Consequences. `Store` has the steps; `Guarded` is a device's handlers between them, in the forms that a shard calls. What an
 * access makes of the state is written to the copy that does not count, with the access's name and answer; one store, the
 * last one, makes it count.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "order.h"
#include "persistent.h"
#include "pyint.h"

#include <string.h>

#define VCPU_SHIFT 48 /* of SIO_JOURNAL in layout.h */

struct store {
    PyObject_HEAD
    uint64_t *words;
    uint64_t size, copy;                      /* bytes of a state at most; words of a copy */
    const struct sio_shard_control *control;  /* its journal names the access in hand, or the last one */
    int inside, staged;                       /* within an access; a state waits for the end of it */
    int repeat;                               /* the predecessor's last access may be asked for again: */
    uint64_t request, element, answer;
};

struct guarded {
    PyObject_HEAD
    struct store *store;
    PyObject *read, *write, *keep;        /* `keep` may be NULL */
    PyObject *unguarded, *unguarded_reads; /* sets of offsets; NULL where they are empty */
};

static PyObject *too_long; /* an interned name, as long as the process lives */

/* ---- the store ---- */

static inline uint64_t *copy_of(const struct store *s, uint64_t count)
{
    return s->words + SIO_STORE_HEADER / sizeof *s->words + (count & 1) * s->copy;
}

static void commit(struct store *s, uint64_t request, uint64_t element, uint64_t answer)
{
    uint64_t count = s->words[0] + 1, *there = copy_of(s, count);
    s->staged = 0;
    there[SIO_STORE_REQUEST] = request;
    there[SIO_STORE_ELEMENT] = element;
    there[SIO_STORE_ANSWER] = answer;
    sio_store_release(&s->words[0], count);
}

/* Non-zero: a predecessor has made this access, and `*answer` is its answer. */
static inline int begin(struct store *s, uint64_t *answer)
{
    s->inside = 1;
    s->staged = 0;
    if (__builtin_expect(!s->repeat, 1))
        return 0;
    uint64_t request = sio_load_relaxed(&s->control->taken), element = sio_load_relaxed(&s->control->element);
    if (request >> VCPU_SHIFT != s->request >> VCPU_SHIFT)
        return 0;
    /* What this vCPU asks first is that access again, or there will be no repetition of it. */
    s->repeat = 0;
    if (request != s->request || element != s->element)
        return 0;
    s->inside = 0;
    *answer = s->answer;
    return 1;
}

static inline void end(struct store *s, uint64_t answer)
{
    s->inside = 0;
    if (s->staged)
        commit(s, sio_load_relaxed(&s->control->taken), sio_load_relaxed(&s->control->element), answer);
}

static int is_open(const struct store *s)
{
    if (!s->words)
        PyErr_SetString(PyExc_ValueError, "the device's memory is closed");
    return s->words != NULL;
}

/* Whether what counts, or waits for the end of the access, is this state already. */
static int is_kept(const struct store *s, const void *state, uint64_t length)
{
    const uint64_t *last = copy_of(s, s->words[0] + (s->staged ? 1 : 0));
    return (s->staged || s->words[0]) && last[SIO_STORE_LENGTH] == length && memcmp(last + SIO_STORE_STATE, state, length) == 0;
}

static PyObject *save(struct store *s, PyObject *argument, int unless_kept)
{
    Py_buffer state;
    if (!is_open(s) || PyObject_GetBuffer(argument, &state, PyBUF_SIMPLE) != 0)
        return NULL;
    uint64_t length = (uint64_t)state.len;
    if (length > s->size) {
        PyBuffer_Release(&state);
        return PyObject_CallMethodOneArg((PyObject *)s, too_long, argument);
    }
    if (!unless_kept || !is_kept(s, state.buf, length)) {
        uint64_t *there = copy_of(s, s->words[0] + 1);
        there[SIO_STORE_LENGTH] = length;
        memcpy(there + SIO_STORE_STATE, state.buf, length);
        s->staged = 1;
        if (!s->inside) { /* a request that the predecessor made may be still to be answered: its name and answer stay */
            const uint64_t *here = copy_of(s, s->words[0]);
            commit(s, here[SIO_STORE_REQUEST], here[SIO_STORE_ELEMENT], here[SIO_STORE_ANSWER]);
        }
    }
    PyBuffer_Release(&state);
    Py_RETURN_NONE;
}

static PyObject *store_save(PyObject *self, PyObject *state) { return save((struct store *)self, state, 0); }
static PyObject *store_save_changed(PyObject *self, PyObject *state) { return save((struct store *)self, state, 1); }

static PyObject *store_begin(PyObject *self, PyObject *none)
{
    uint64_t answer;
    if (!is_open((struct store *)self))
        return NULL;
    if (begin((struct store *)self, &answer))
        return PyLong_FromUnsignedLongLong(answer);
    Py_RETURN_NONE;
}

static PyObject *store_end(PyObject *self, PyObject *answer)
{
    uint64_t value = PyLong_AsUnsignedLongLongMask(answer);
    if ((value == (uint64_t)-1 && PyErr_Occurred()) || !is_open((struct store *)self))
        return NULL;
    end((struct store *)self, value);
    Py_RETURN_NONE;
}

static PyObject *store_journal(PyObject *self, PyObject *none)
{
    const struct store *s = (const struct store *)self;
    if (!is_open(s))
        return NULL;
    return Py_BuildValue("(KK)", (unsigned long long)sio_load_relaxed(&s->control->taken),
                         (unsigned long long)sio_load_relaxed(&s->control->element));
}

static PyMethodDef store_methods[] = {
    {"save", store_save, METH_O, "Keep a state: from the end of the access in hand on, or, outside of one, from now on."},
    {"save_changed", store_save_changed, METH_O, "The same, of a state that is another one than the last."},
    {"begin", store_begin, METH_NOARGS, "An access begins: its answer where a predecessor has made it, else None."},
    {"end", store_end, METH_O, "It ends, with this answer."},
    {"journal", store_journal, METH_NOARGS, "The name of the access in hand, or of the last one: request and element."},
    {NULL},
};

static PyTypeObject store_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "shardio._core.Store",
    .tp_basicsize = sizeof(struct store),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_methods = store_methods,
    .tp_new = PyType_GenericNew,
};

void sio_store_open(uintptr_t store, uint64_t *words, uint64_t size, const struct sio_shard_control *control)
{
    struct store *s = (struct store *)store;
    s->words = words;
    s->size = size;
    s->copy = SIO_STORE_STATE + (size + sizeof *words - 1) / sizeof *words;
    s->control = control;
    s->inside = s->staged = s->repeat = 0;
    if (!words || !words[0])
        return;
    const uint64_t *here = copy_of(s, words[0]);
    s->repeat = 1;
    s->request = here[SIO_STORE_REQUEST];
    s->element = here[SIO_STORE_ELEMENT];
    s->answer = here[SIO_STORE_ANSWER];
}

/* ---- a device's handlers ---- */

/* Non-zero: this register needs no beginning and no end. Negative: an exception. */
static inline int is_in(PyObject *offsets, PyObject *offset) { return offsets ? PySet_Contains(offsets, offset) : 0; }

static inline int is_unguarded_read(const struct guarded *g, PyObject *offset, PyObject *width)
{
    uint64_t size;
    int found = is_in(g->unguarded, offset);
    return found || !sio_compact_int(width, &size) || size != 1 ? found : is_in(g->unguarded_reads, offset);
}

/* `result` of a handler, once its state is kept, which is before the access ends; NULL: either has raised. */
static PyObject *kept(const struct guarded *g, PyObject *result)
{
    if (result && g->keep) {
        PyObject *done = PyObject_CallNoArgs(g->keep);
        if (!done)
            Py_CLEAR(result);
        Py_XDECREF(done);
    }
    return result;
}

/* `args[0]` is to spare. */
static PyObject *call(const struct guarded *g, PyObject *handler, PyObject **args, size_t n)
{
    return kept(g, PyObject_Vectorcall(handler, args + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL));
}

/* The low `size` bytes of what a handler returned, a new reference; an exception ends the access like any other answer. */
static PyObject *cut(PyObject *found, PyObject *width, uint64_t *value)
{
    uint64_t size;
    PyObject *whole = PyNumber_Index(found);
    *value = whole ? PyLong_AsUnsignedLongLongMask(whole) : 0;
    if (!whole || !sio_compact_int(width, &size))
        return whole;
    Py_DECREF(whole);
    if (size < sizeof *value)
        *value &= (1ull << 8 * size) - 1;
    return PyLong_FromUnsignedLongLong(*value);
}

static PyObject *guarded_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct guarded *g = (struct guarded *)self;
    uint64_t value = 0;
    if (n != 2)
        return PyErr_Format(PyExc_TypeError, "read() takes offset and size, got %zd arguments", n);
    PyObject *words[] = {NULL, args[0], args[1]};
    int unguarded = is_unguarded_read(g, args[0], args[1]);
    if (unguarded)
        return unguarded < 0 ? NULL : PyObject_Vectorcall(g->read, words + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!is_open(g->store))
        return NULL;
    if (begin(g->store, &value))
        return PyLong_FromUnsignedLongLong(value);
    PyObject *found = PyObject_Vectorcall(g->read, words + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (found)
        Py_SETREF(found, cut(found, args[1], &value));
    found = kept(g, found);
    end(g->store, value);
    return found;
}

static PyObject *guarded_write(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct guarded *g = (struct guarded *)self;
    uint64_t answer;
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "write() takes offset, size and value, got %zd arguments", n);
    PyObject *words[] = {NULL, args[0], args[1], args[2]};
    int unguarded = is_in(g->unguarded, args[0]);
    if (unguarded)
        return unguarded < 0 ? NULL : PyObject_Vectorcall(g->write, words + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!is_open(g->store))
        return NULL;
    if (begin(g->store, &answer))
        Py_RETURN_NONE;
    PyObject *done = call(g, g->write, words, 3);
    end(g->store, 0);
    return done;
}

/* The bytes of a view as a number; how many there are in `*size`. Negative: it is none, an exception. */
static int number_in(PyObject *data, uint64_t *value, uint64_t *size, int store)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, store ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0)
        return -1;
    *size = view.len < 8 ? (uint64_t)view.len : 8;
    if (store)
        memcpy(view.buf, value, *size);
    else
        memcpy(value, view.buf, *size);
    PyBuffer_Release(&view);
    return 0;
}

static PyObject *guarded_view_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct guarded *g = (struct guarded *)self;
    uint64_t value = 0, size;
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "a read takes base, offset and data, got %zd arguments", n);
    if (!is_open(g->store))
        return NULL;
    if (begin(g->store, &value)) {
        if (number_in(args[2], &value, &size, 1) != 0)
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *words[] = {NULL, args[0], args[1], args[2]};
    PyObject *done = call(g, g->read, words, 3), *type = NULL, *error = NULL, *traceback = NULL;
    PyErr_Fetch(&type, &error, &traceback);
    if (number_in(args[2], &value, &size, 0) != 0) /* the handler has released it */
        PyErr_Clear();
    PyErr_Restore(type, error, traceback);
    end(g->store, value);
    return done;
}

static PyObject *guarded_view_write(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct guarded *g = (struct guarded *)self;
    uint64_t answer;
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "a write takes base, offset and data, got %zd arguments", n);
    if (!is_open(g->store))
        return NULL;
    if (begin(g->store, &answer))
        Py_RETURN_NONE;
    PyObject *words[] = {NULL, args[0], args[1], args[2]};
    PyObject *done = call(g, g->write, words, 3);
    end(g->store, 0);
    return done;
}

static PyObject *guarded_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *store, *read, *write, *keep, *unguarded, *unguarded_reads, *sets = (PyObject *)&PyFrozenSet_Type;
    if (!PyArg_ParseTuple(args, "O!OOOO!O!", &store_type, &store, &read, &write, &keep, sets, &unguarded, sets, &unguarded_reads))
        return NULL;
    struct guarded *g = (struct guarded *)type->tp_alloc(type, 0);
    if (!g)
        return NULL;
    g->store = (struct store *)Py_NewRef(store);
    g->read = Py_NewRef(read);
    g->write = Py_NewRef(write);
    g->keep = keep == Py_None ? NULL : Py_NewRef(keep);
    g->unguarded = PySet_GET_SIZE(unguarded) ? Py_NewRef(unguarded) : NULL;
    g->unguarded_reads = PySet_GET_SIZE(unguarded_reads) ? Py_NewRef(unguarded_reads) : NULL;
    return (PyObject *)g;
}

static int guarded_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct guarded *g = (struct guarded *)self;
    Py_VISIT(g->store);
    Py_VISIT(g->read);
    Py_VISIT(g->write);
    Py_VISIT(g->keep);
    Py_VISIT(g->unguarded);
    Py_VISIT(g->unguarded_reads);
    return 0;
}

/* Nobody calls what nobody reaches: the members may go in any order. */
static int guarded_clear(PyObject *self)
{
    struct guarded *g = (struct guarded *)self;
    Py_CLEAR(g->store);
    Py_CLEAR(g->read);
    Py_CLEAR(g->write);
    Py_CLEAR(g->keep);
    Py_CLEAR(g->unguarded);
    Py_CLEAR(g->unguarded_reads);
    return 0;
}

static void guarded_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    guarded_clear(self);
    Py_TYPE(self)->tp_free(self);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef guarded_methods[] = {
    {"read", FAST(guarded_read), "`size` bytes from `offset`."},
    {"write", FAST(guarded_write), "`size` bytes of `value` to `offset`."},
    {"view_read", FAST(guarded_view_read), "The same, in view form: `base`, `offset`, `data`."},
    {"view_write", FAST(guarded_view_write), "Likewise."},
    {NULL},
};

static PyTypeObject guarded_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "shardio._core.Guarded",
    .tp_basicsize = sizeof(struct guarded),
    .tp_dealloc = guarded_dealloc,
    .tp_traverse = guarded_traverse,
    .tp_clear = guarded_clear,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_methods = guarded_methods,
    .tp_new = guarded_new,
};

int sio_persistent_into(uintptr_t dictionary)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *into = (PyObject *)dictionary;
    if (!too_long)
        too_long = PyUnicode_InternFromString("_too_long");
    int failed = !too_long || PyType_Ready(&store_type) != 0 || PyType_Ready(&guarded_type) != 0 ||
                 PyDict_SetItemString(into, "Store", (PyObject *)&store_type) != 0 ||
                 PyDict_SetItemString(into, "Guarded", (PyObject *)&guarded_type) != 0;
    PyErr_Clear();
    PyGILState_Release(gil);
    return failed ? -ENOMEM : 0;
}
