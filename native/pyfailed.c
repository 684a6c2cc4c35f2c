/* Reports each failure of a Python handler once. */
#include "pyfailed.h"

void sio_py_forget(struct sio_py_sites *sites)
{
    for (uint32_t i = 0; i < SIO_PY_SITES; i++)
        Py_CLEAR(sites->site[i].place);
    sites->n = 0;
}

/* Whether a failure there has been reported. It counts as reported from now on, as long as there is room. */
static int known(struct sio_py_sites *sites, PyObject *place, int instruction, uint32_t handler)
{
    uint64_t at = ((uintptr_t)place >> 4) + (uint64_t)(uint32_t)instruction * 31 + (uint64_t)handler * 0x9e3779b9u;
    for (at %= SIO_PY_SITES; sites->site[at].place; at = (at + 1) % SIO_PY_SITES)
        if (sites->site[at].place == place && sites->site[at].instruction == instruction && sites->site[at].handler == handler)
            return 1;
    if (sites->n < SIO_PY_SITES / 2) {
        sites->n++;
        sites->site[at].place = Py_NewRef(place);
        sites->site[at].instruction = instruction;
        sites->site[at].handler = handler;
    }
    return 0;
}

/* Whether an exception from the same place has been reported: of one that comes from C, its type is all that is known. */
static int raised_before(struct sio_py_sites *sites, PyObject *type, PyObject *traceback, uint32_t handler)
{
    PyTracebackObject *last = (PyTracebackObject *)traceback;
    if (!last)
        return known(sites, type, -1, handler);
    while (last->tb_next)
        last = last->tb_next;
    PyCodeObject *code = PyFrame_GetCode(last->tb_frame);
    int before = known(sites, (PyObject *)code, last->tb_lasti, handler);
    Py_DECREF(code);
    return before;
}

void sio_py_report(struct sio_py_sites *sites, PyObject *on_error, uint32_t range, int write)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type && !raised_before(sites, type, traceback, range << 1 | (uint32_t)write)) {
        PyErr_NormalizeException(&type, &value, &traceback);
        if (value && traceback)
            PyException_SetTraceback(value, traceback);
        PyObject *ret = PyObject_CallFunction(on_error, "IOi", range, value ? value : Py_None, write);
        if (!ret)
            PyErr_Clear(); /* the reporter itself failed: the access is refused all the same */
        Py_XDECREF(ret);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

void sio_py_refuse(struct sio_py_sites *sites, PyObject *read, uint64_t offset, uint32_t size, PyObject *result, uint32_t range)
{
    PyObject *place = read;
    if (PyMethod_Check(read)) /* not the method, which would keep its device */
        place = PyMethod_GET_FUNCTION(read);
    else if (PyCFunction_Check(read) && PyCFunction_GET_SELF(read)) /* nor one in C (fast_registers.c) */
        place = (PyObject *)Py_TYPE(PyCFunction_GET_SELF(read));
    if (known(sites, place, -1, range << 1))
        return;
    PyObject *errors = PyImport_ImportModule("shardio.errors");
    PyObject *type = errors ? PyObject_GetAttrString(errors, "InvalidResult") : NULL;
    PyObject *shown = type ? PyObject_Repr(result) : NULL;
    PyObject *error = shown ? PyObject_CallFunction(type, "OKIO", read, (unsigned long long)offset, size, shown) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(shown);
    Py_XDECREF(type);
    Py_XDECREF(errors);
}
