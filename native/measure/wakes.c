/* The floor of wake-ups: a doorbell answered and an interrupt raised by a process that does nothing else. */
#include "measure.h"
#include "sys.h"

#include <sys/epoll.h>

void sio_measure_answer(int epoll_fd, int bell, const uint32_t *number, uint32_t *answer)
{
    struct epoll_event event;
    uint64_t rings;
    for (;;) {
        sio_syscall6(SYS_epoll_pwait, epoll_fd, (long)&event, 1, -1, 0, 8);
        if (sio_syscall3(SYS_read, bell, &rings, sizeof rings) == sizeof rings)
            sio_store_release(answer, sio_load_relaxed(number));
    }
}

uint64_t sio_measure_raise(int irqfd, const uint32_t *count, uint64_t gap, uint64_t patience)
{
    uint64_t begin = sio_ticks(), now;
    while (sio_ticks() - begin < gap)
        sio_relax();
    uint32_t before = sio_load_relaxed(count);
    begin = sio_ticks();
    sio_eventfd_ring(irqfd);
    do
        now = sio_ticks();
    while (sio_load_acquire(count) == before && now - begin < patience);
    return now - begin;
}
