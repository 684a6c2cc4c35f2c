/* Delivers doorbells from epoll, and sleeps for a shard's event loop. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bells.h"
#include "pydispatch.h"
#include "sys.h"
#include "trace_owner.h"

#include <stdlib.h>
#include <sys/epoll.h>

struct sio_bell {
    int fd; /* -1: none */
    uint32_t range;
    uint32_t index;
    PyObject *ring;
    uint64_t *count;
};

/* asyncio's own descriptors leave the upper half of an event's data as it happens to be. */
static uint64_t tag(uint32_t bell, int fd) { return (uint64_t)bell << 32 | (uint32_t)fd; }

static struct sio_bell *bell_of(struct sio_owner *o, const struct epoll_event *event)
{
    uint32_t bell = (uint32_t)(event->data.u64 >> 32);
    if (bell >= o->bell_count || o->bells[bell].fd != (int)(uint32_t)event->data.u64)
        return NULL;
    return &o->bells[bell];
}

static void call(struct sio_owner *o, const struct sio_bell *bell)
{
    sio_py_take(o);
    PyObject *ring = Py_NewRef(bell->ring), *result = NULL; /* it may remove itself */
    PyObject *args[2] = {NULL, PyLong_FromUnsignedLong(bell->index)};
    uint32_t range = bell->range;
    if (args[1])
        result = PyObject_Vectorcall(ring, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!result)
        sio_py_failed(o, range, SIO_RUNG);
    Py_XDECREF(result);
    Py_XDECREF(args[1]);
    Py_DECREF(ring);
}

/* Of one event: non-zero where it was a doorbell's. */
static int deliver(struct sio_owner *o, const struct epoll_event *event)
{
    struct sio_bell *bell = bell_of(o, event);
    uint64_t times;
    if (!bell)
        return 0;
    if (sio_syscall3(SYS_read, bell->fd, &times, sizeof times) == sizeof times) {
        *bell->count += times;
        if (sio_owner_traced(o) && bell->range != SIO_NO_RANGE)
            sio_trace_rung(o, bell->range, bell->index, times);
        call(o, bell);
    }
    return 1;
}

int sio_py_add_bell(struct sio_owner *o, int epoll_fd, int fd, uintptr_t ring, uint32_t index, uint64_t *count, uint32_t range)
{
    uint32_t i = 0;
    while (i < o->bell_count && o->bells[i].fd >= 0)
        i++;
    if (i == o->bell_count) {
        struct sio_bell *more = realloc(o->bells, (i + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        o->bells = more;
        more[i] = (struct sio_bell){.fd = -1};
        o->bell_count++;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag(i, fd)};
    long status = sio_syscall4(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_ADD, fd, &event);
    if (status == 0) {
        o->bells[i] = (struct sio_bell){fd, range, index, (PyObject *)ring, count};
        o->deliver = deliver;
    }
    return (int)status;
}

void sio_py_remove_bell(struct sio_owner *o, int epoll_fd, int fd)
{
    for (uint32_t i = 0; i < o->bell_count; i++)
        if (o->bells[i].fd == fd) {
            sio_syscall4(SYS_epoll_ctl, epoll_fd, EPOLL_CTL_DEL, fd, 0);
            o->bells[i].fd = -1;
        }
}

int sio_py_wait(struct sio_owner *o, uint64_t turn_ns, int epoll_fd, int timeout_ms)
{
    int found = sio_owner_events(o, epoll_fd, timeout_ms), waited = 0;
    /* The next ring may come soon, and a turn waits for it by yields. */
    if ((found & SIO_EVENT_BELL) && !sio_owner_crowded(o, sio_ticks()))
        waited |= SIO_WAITED_TURN;
    if (found & SIO_EVENT_OTHER)
        waited |= SIO_WAITED_EVENTS;
    if (found & SIO_EVENT_DOORBELL) {
        enum sio_turn turn = sio_owner_turn(o, turn_ns, epoll_fd);
        if (turn != SIO_TURN_ASLEEP)
            waited |= SIO_WAITED_TURN;
        if (turn == SIO_TURN_EVENTS)
            waited |= SIO_WAITED_EVENTS;
    }
    sio_py_give(o);
    return waited;
}
