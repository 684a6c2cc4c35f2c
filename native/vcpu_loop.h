/* The loop of a vCPU worker: enter the guest -> route -> publish -> wait -> enter again. For worker.c and soft_worker.c, each of
 * which includes this once and defines the two functions declared below: how its kind of CPU enters the guest and raises a line.
 *
 * Facts. An exit is complete only at the next entry, when the CPU takes the data out of the kvm_run page; until then the page
 * and the vCPU's registers survive the worker's death: in the kernel, or in the record that a software CPU keeps.
 *
 * Consequences. The journal: answer the exit -> overwrite exit_reason with a sentinel -> forget the message -> enter. A fresh
 * worker that finds the sentinel (or a reason that asks for nothing) re-enters; one that finds an exit serves it, and the
 * client's journal tells whether its message is out already. Nothing here calls libc: KVM's worker has no TLS
 * (tests/native/reach.c checks that).
 */
#ifndef SHARDIO_VCPU_LOOP_H
#define SHARDIO_VCPU_LOOP_H

#include "vcpu_wires.h"

#include <signal.h>
#include <sys/prctl.h>

#define PARK_NS 1000000000u
#define HOLD_NS 1000000000u
#define RETRY_NS 100000000u /* entries that bring nothing follow each other closely when they are less than this apart */

/* One entry: 0 after an exit, whose record is in v->run; -EINTR after a kick or with immediate_exit set, -EAGAIN to be entered
 * again (nothing has been executed: see enter_again), another -errno where the vCPU cannot go on. */
static long enter_guest(struct sio_vcpu *v);
/* Pulses the lines of v->client.lines, which a device raised during the access, before the guest goes on; clears them. A worker
 * killed in between pulses again: an edge too many, which a driver takes for a shared line's. */
static void raise_lines(struct sio_vcpu *v);

/* ---- signals ------------------------------------------------------------------------------------------------------ */

struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

#if defined(__x86_64__)
#define SA_RESTORER_FLAG 0x04000000ul
void sio_sigreturn(void);
__asm__(".text\n.hidden sio_sigreturn\n.type sio_sigreturn, @function\nsio_sigreturn:\n\tmov $15, %eax\n\tsyscall\n");
#else
#define SA_RESTORER_FLAG 0ul
#define sio_sigreturn ((void (*)(void))0)
#endif

static void kicked(int signal) {}

/* The inherited handlers are the interpreter's and must never run here. SIGINT and its like are for the VMM to act on. */
static void take_signals(void)
{
    uint64_t none = 0;
    for (int n = 1; n <= 64; n++) {
        struct kernel_sigaction action = {.handler = SIG_DFL};
        if (n == SIGKILL || n == SIGSTOP)
            continue;
        if (n == SIGINT || n == SIGTERM || n == SIGHUP || n == SIGQUIT || n == SIGPIPE)
            action.handler = SIG_IGN;
        if (n == SIO_KICK_SIGNAL) {
            action.handler = kicked;
            action.flags = SA_RESTORER_FLAG;
            action.restorer = sio_sigreturn;
        }
        sio_syscall4(SYS_rt_sigaction, n, &action, 0, 8);
    }
    sio_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

/* ---- states ------------------------------------------------------------------------------------------------------- */

static void enter_state(struct sio_vcpu *v, uint32_t state)
{
    sio_publish(&v->state, state); /* SP-COMMAND */
    sio_futex_wake(&v->state);
    sio_eventfd_ring(v->event);
}

static uint32_t command(const struct sio_vcpu *v) { return sio_load_acquire(&v->command); /* SP-COMMAND */ }

/* Parks until told to run or stop. */
static uint32_t park(struct sio_vcpu *v)
{
    uint32_t told;
    enter_state(v, SIO_PAUSED);
    while ((told = command(v)) == SIO_PAUSE)
        sio_futex_wait(&v->command, SIO_PAUSE, PARK_NS);
    if (told == SIO_RUN)
        enter_state(v, SIO_RUNNING);
    return told;
}

/* The access in hand asked for the machine's end: the guest does not go on until the VMM has said what becomes of it, which it
 * does at once, or says nothing because whoever uses it lets the guest go on. */
static __attribute__((noinline, cold)) void hold(struct sio_vcpu *v) { sio_futex_wait(&v->command, SIO_RUN, HOLD_NS); }

/* ---- exits -------------------------------------------------------------------------------------------------------- */

static void complete(struct sio_vcpu *v)
{
    sio_store_release(&v->run->exit_reason, SIO_SENTINEL);
    v->fragment = 0;
    sio_client_complete(&v->client);
}

static enum sio_outcome serve_pio(struct sio_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint8_t *bytes = (uint8_t *)run + run->io.data_offset;
    uint32_t size = run->io.size, count = run->io.count;
    int write = run->io.direction == KVM_EXIT_IO_OUT;
    uint64_t data = 0;

    if (count != 1) {
        sio_count(v->string_exits);
        return sio_client_string(&v->client, SIO_PIO, run->io.port, size, write, count, bytes);
    }
    if (write)
        __builtin_memcpy(&data, bytes, size);
    enum sio_outcome outcome = sio_client_access(&v->client, SIO_PIO, run->io.port, size, write, &data);
    if (!write && outcome != SIO_ABORTED)
        __builtin_memcpy(bytes, &data, size);
    return outcome;
}

/* An access that a page's end cut to 3, 5, 6 or 7 bytes. Each byte is a message; `fragment` is the journal that tells a fresh
 * worker which of them the client's journal speaks of: the message's name and, in bits 48-51 of it, the bytes done. */
static enum sio_outcome serve_bytes(struct sio_vcpu *v, uint32_t size)
{
    struct kvm_run *run = v->run;
    uint32_t done = (uint32_t)(v->fragment >> 48) & 15;

    if (v->client.pending && v->client.pending == (v->fragment & ~(15ull << 48)))
        sio_client_complete(&v->client);
    for (uint32_t i = done; i < size && i < 8; i++) {
        uint64_t byte = run->mmio.data[i];
        if (sio_client_access(&v->client, SIO_MMIO, run->mmio.phys_addr + i, 1, run->mmio.is_write, &byte) == SIO_ABORTED)
            return SIO_ABORTED;
        if (!run->mmio.is_write)
            run->mmio.data[i] = (uint8_t)byte;
        sio_store_release(&v->fragment, v->client.pending | (uint64_t)(i + 1) << 48);
        sio_client_complete(&v->client);
    }
    return SIO_ANSWERED;
}

static enum sio_outcome serve_mmio(struct sio_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint32_t size = run->mmio.len;
    uint64_t data = 0;

    __builtin_memcpy(&data, run->mmio.data, 8);
    if (size == 1 || size == 2 || size == 4 || size == 8) {
        enum sio_outcome outcome = sio_client_access(&v->client, SIO_MMIO, run->mmio.phys_addr, size, run->mmio.is_write, &data);
        if (!run->mmio.is_write && outcome != SIO_ABORTED)
            __builtin_memcpy(run->mmio.data, &data, 8);
        return outcome;
    }
    return serve_bytes(v, size);
}

/* Whether to enter again after an entry that brought nothing to do. Some of these are in order (a processor that waits for its
 * SIPI is woken by every INIT), but one that KVM returns for ever would keep the vCPU busy, and nobody would be told. So only
 * SIO_RETRIES of them may follow each other closely without an access in between. */
static __attribute__((noinline, cold)) int enter_again(struct sio_vcpu *v)
{
    uint64_t now = sio_ticks(), accesses = v->wait_ticks + v->client.accesses; /* each access adds to one of the two at least */
    if (accesses != v->retry_accesses || sio_ticks_to_ns(&v->client.fabric, now - v->retry_ticks) > RETRY_NS)
        v->retries = 0;
    v->retry_accesses = accesses;
    v->retry_ticks = now;
    return ++v->retries < SIO_RETRIES;
}

/* An exit that is not served here: the VMM says whether the vCPU goes on, or ends in the state `otherwise`. The question is the
 * journal: a fresh worker waits for the same verdict, and one that has been carried out is not taken for another's, because the
 * sentinel comes before the question is forgotten. */
static __attribute__((noinline, cold)) uint32_t ask(struct sio_vcpu *v, uint32_t otherwise)
{
    uint32_t verdict;
    if (!v->asks)
        return otherwise;
    if (sio_load_acquire(&v->question) == SIO_NO_QUESTION)
        sio_store_release(&v->question, SIO_ASKED);
    enter_state(v, SIO_ASKING);
    while ((verdict = sio_load_acquire(&v->question)) == SIO_ASKED) { /* SP-COMMAND */
        if (command(v) == SIO_STOP)
            return SIO_STOPPED;
        sio_futex_wait(&v->question, SIO_ASKED, PARK_NS);
    }
    if (verdict == SIO_GIVE_UP || (verdict == SIO_TRY_AGAIN && !enter_again(v)))
        return otherwise;
    complete(v);
    sio_store_release(&v->question, SIO_NO_QUESTION);
    enter_state(v, SIO_RUNNING);
    return SIO_RUNNING;
}

/* After a single step, or at a breakpoint of the processor's debug registers: whether that is nothing to ask about, because a
 * debugger only waits for a change of what it watches. */
static __attribute__((noinline, cold)) int goes_on_stepping(struct sio_vcpu *v)
{
#if defined(__x86_64__)
    if (!v->watches || (v->run->debug.arch.dr6 & 15))
        return 0;
    for (uint32_t i = 0; i < v->watches && i < SIO_WATCHES; i++)
        for (uint32_t n = 0; n < v->watch[i].size && n < 8; n++)
            if (sio_load_relaxed(&v->watch[i].at[n]) != v->watch[i].value[n])
                return 0;
    return 1;
#else
    return 0;
#endif
}

/* One match on the exit. Returns SIO_RUNNING to go on, or the state that the vCPU ends in. */
static uint32_t serve(struct sio_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
    case KVM_EXIT_MMIO:
        outcome = run->exit_reason == KVM_EXIT_IO ? serve_pio(v) : serve_mmio(v);
        if (outcome == SIO_ABORTED)
            return SIO_STOPPED;
        uint32_t lines = v->client.lines;
        if (__builtin_expect(lines, 0)) {
            v->client.lines = lines & ~SIO_LINE_HOLD;
            raise_lines(v);
        }
        complete(v);
        if (__builtin_expect(lines & SIO_LINE_HOLD, 0))
            hold(v);
        if (__builtin_expect(v->stepping, 0)) {
            sio_store_relaxed(&v->inspect, 1);
            sio_store_relaxed(&run->immediate_exit, 1); /* the CPU finishes the access, and comes straight back */
        }
        sio_store_relaxed(&v->wait_ticks, v->wait_ticks + (sio_ticks() - begin));
        return SIO_RUNNING;
    case KVM_EXIT_IOAPIC_EOI: {
        uint64_t vector = run->eoi.vector;
        if (sio_client_access(&v->client, SIO_MMIO, SIO_IOAPIC_EOI, 4, 1, &vector) == SIO_ABORTED)
            return SIO_STOPPED;
        complete(v);
        return SIO_RUNNING;
    }
    case SIO_SENTINEL:
    case KVM_EXIT_UNKNOWN: /* of a vCPU that has never been entered, too: its page is empty */
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
        if (v->question != SIO_NO_QUESTION)
            return ask(v, SIO_FAILED); /* a predecessor's, about where the guest is, or carried out and not forgotten */
        if (!enter_again(v))
            return SIO_FAILED;
        complete(v);
        return SIO_RUNNING;
    case KVM_EXIT_DEBUG:
        if (!goes_on_stepping(v))
            return ask(v, SIO_FAILED);
        complete(v);
        return SIO_RUNNING;
    case KVM_EXIT_HLT:
        return ask(v, SIO_HALTED);
    case KVM_EXIT_SHUTDOWN:
        return ask(v, SIO_SHUTDOWN);
    case KVM_EXIT_SYSTEM_EVENT:
        v->detail = run->system_event.type;
        return ask(v, SIO_SYSTEM);
    case KVM_EXIT_FAIL_ENTRY:
        v->detail = run->fail_entry.hardware_entry_failure_reason;
        return ask(v, SIO_FAILED);
    case KVM_EXIT_INTERNAL_ERROR:
        v->detail = run->internal.suberror;
        return ask(v, SIO_FAILED);
    default:
        return ask(v, SIO_FAILED);
    }
}

static void count_exit(struct sio_vcpu *v, uint32_t reason)
{
    if (reason < SIO_EXIT_REASONS)
        sio_count(v->exits[reason]);
    else
        sio_count(v->other_exits);
}

static uint32_t run_until_told(struct sio_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint32_t told;
    /* A predecessor's message to the controllers, or its exit, if it left one, comes first. */
    if (v->wire_step && resume_wires(v) == SIO_ABORTED)
        return SIO_STOPPED;
    uint32_t state = serve(v);

    while (state == SIO_RUNNING) {
        if (__builtin_expect((told = command(v)) != SIO_RUN, 0)) {
            if (told == SIO_STOP)
                return SIO_STOPPED;
            sio_store_relaxed(&run->immediate_exit, 1); /* KVM finishes the last exit, and comes straight back */
        }
        if (__builtin_expect(lines_moved(v), 0) && serve_wires(v) == SIO_ABORTED)
            return SIO_STOPPED;
        long ret = enter_guest(v);
        if (__builtin_expect(ret == 0, 1)) {
            count_exit(v, run->exit_reason);
            state = serve(v);
        } else if (ret == -EINTR) {
            sio_count(v->interrupted);
            sio_store_relaxed(&run->immediate_exit, 0);
            sio_fence_full();
            if (command(v) == SIO_PAUSE && park(v) == SIO_STOP)
                return SIO_STOPPED;
            if (__builtin_expect(sio_load_acquire(&v->inspect), 0) && v->asks) {
                sio_store_relaxed(&v->inspect, 0);
                sio_store_release(&run->exit_reason, KVM_EXIT_INTR);
                state = ask(v, SIO_FAILED);
            }
        } else {
            if (ret == -EAGAIN && enter_again(v)) {
                sio_count(v->retried);
                continue;
            }
            v->detail = (uint64_t)-ret;
            return SIO_BROKEN;
        }
    }
    return state;
}

static void end(struct sio_vcpu *v, uint32_t state)
{
    v->reason = v->run->exit_reason;
    enter_state(v, state);
}

/* From the start, or from wherever a killed predecessor stopped, to the end. */
static void work(struct sio_vcpu *v)
{
    sio_count(v->spawns);
    sio_client_resume(&v->client);
    v->client.waiter.abort = &v->command;
    v->client.waiter.abort_value = SIO_STOP;
    sio_store_relaxed(&v->run->immediate_exit, 0);
    sio_fence_full();
    if (sio_load_relaxed(&v->inspect))
        sio_store_relaxed(&v->run->immediate_exit, 1); /* asked before there was a worker to be kicked */
    if (command(v) == SIO_RUN && v->question == SIO_NO_QUESTION)
        enter_state(v, SIO_RUNNING);
    end(v, run_until_told(v));
}

static __attribute__((noreturn)) void leave(void)
{
    for (;;)
        sio_syscall3(SYS_exit_group, 0, 0, 0);
}

/* What ps and top show of this process. */
static void set_name(uint32_t vcpu)
{
    char name[16] = "shardio:vcpu:", *end = name + 13;
    if (vcpu >= 10)
        *end++ = (char)('0' + vcpu / 10 % 10);
    *end = (char)('0' + vcpu % 10);
    sio_syscall6(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0, 0);
}

/* What the child does, whatever its kind: it ends here. A worker whose parent is not the VMM any more does nothing. */
static __attribute__((noreturn)) void run_worker(struct sio_vcpu *v)
{
    take_signals();
    set_name(v->client.vcpu);
    sio_syscall6(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    if (sio_syscall3(SYS_getppid, 0, 0, 0) == v->parent) {
        if (v->affinity >= 0) {
            uint64_t mask[16] = {0};
            mask[v->affinity / 64 & 15] = 1ull << (v->affinity & 63);
            sio_syscall3(SYS_sched_setaffinity, 0, sizeof mask, mask);
        }
        work(v);
    }
    leave();
}

#endif
