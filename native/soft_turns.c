/* Whose turn it is: software vCPUs execute one at a time, and pass the turn on at every access and after a slice of time.
 *
 * Facts. A lock prefix of one process is not atomic to another one; a turn is. The token is a futex: 0, or the holder's number + 1.
 * A holder that dies is buried by the VMM, which frees the token.
 */
#include "soft_worker.h"

#define SLICE_NS 100000u        /* a vCPU's turn where others wait */
#define SPIN_TICKS 6000u        /* for the token, before sleeping */
#define SLEEP_NS 10000000u

static uint64_t slice_ticks(void) { return sio_ns_to_ticks(&sio_soft.me->vcpu.client.fabric, SLICE_NS); }

static __attribute__((noinline)) void wait_for_turn(void)
{
    struct sio_soft_machine *m = sio_soft.machine;
    uint32_t me = sio_soft.me->index + 1, holder;
    uint64_t begin = sio_ticks();
    __atomic_fetch_add(&m->token_waiters, 1, __ATOMIC_SEQ_CST);
    while (!sio_swap_if(&m->token, 0u, me)) {
        if (sio_ticks() - begin < SPIN_TICKS)
            sio_relax();
        else if ((holder = sio_load_relaxed(&m->token))) {
            soft_end_if_told();
            sio_futex_wait(&m->token, holder, SLEEP_NS);
        }
    }
    __atomic_fetch_sub(&m->token_waiters, 1, __ATOMIC_SEQ_CST);
}

void soft_take_turn(void)
{
    struct sio_soft_machine *m = sio_soft.machine;
    uint32_t me = sio_soft.me->index + 1;
    if (m->vcpus == 1 || m->token == me)
        return;
    if (!sio_swap_if(&m->token, 0u, me))
        wait_for_turn();
    sio_soft.slice_end = sio_ticks() + slice_ticks();
    if (m->last_holder != me) {
        m->last_holder = me;
        if (!sio_soft.replaying && !sio_soft.saved)
            soft_code_check();
    }
}

void soft_give_turn(void)
{
    struct sio_soft_machine *m = sio_soft.machine;
    if (m->vcpus == 1 || m->token != sio_soft.me->index + 1)
        return;
    sio_publish(&m->token, 0); /* a full fence before the look at the waiters: SP-WAKEUP */
    if (sio_load_relaxed(&m->token_waiters))
        sio_futex_wake(&m->token);
}

/* Another's turn, where one waits: it is let get there first. */
void soft_pass_turn(void)
{
    struct sio_soft_machine *m = sio_soft.machine;
    uint64_t until = sio_ticks() + slice_ticks();
    soft_give_turn();
    while (sio_load_relaxed(&m->token_waiters) && !sio_load_relaxed(&m->token) && sio_ticks() < until)
        sio_yield();
    soft_take_turn();
}
