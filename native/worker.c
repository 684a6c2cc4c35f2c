/* KVM's vCPU worker: the loop of vcpu_loop.h around KVM_RUN, in a process that is cloned into the VMM's address space.
 *
 * Facts. KVM runs a vCPU only from the address space that made its VM, so a worker is cloned with CLONE_VM; without
 * CLONE_THREAD it is a process of its own, that kill -9 takes alone. It has no TLS: the thread pointer is the spawning
 * thread's.
 *
 * Consequence. What the worker runs calls nothing of libc: raw system calls only, no errno, no stack protector, every symbol bound
 * at load. tests/native/reach.c links it alone, which fails where it reaches anything else.
 */
#include "trace.h"
#include "vcpu_loop.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

static inline long enter_guest(struct sio_vcpu *v) { return sio_syscall3(SYS_ioctl, v->fd, KVM_RUN, 0); }

/* KVM_IRQ_LINE, which pulses where it is told `level` and then the other. */
static void set_line(const struct sio_vcpu *v, uint32_t gsi, uint32_t level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};
    sio_syscall3(SYS_ioctl, v->vm_fd, KVM_IRQ_LINE, &line);
}

void sio_vcpu_follow(const struct sio_vcpu *v, uint32_t told)
{
    uint32_t followed = sio_load_relaxed(&v->followed), levels;
    if (v->vm_fd < 0)
        return;
    for (uint32_t left = told & SIO_WIRED_MASK & ~followed; left; left &= left - 1) {
        set_line(v, (uint32_t)__builtin_ctz(left), 1);
        set_line(v, (uint32_t)__builtin_ctz(left), 0);
    }
    if (!(told & SIO_LINE_MOVED))
        return;
    do { /* others may set them too, by an older view: who has set them looks again */
        levels = levels_now(v) & followed;
        for (uint32_t left = followed; left; left &= left - 1) {
            uint32_t gsi = (uint32_t)__builtin_ctz(left), level = levels >> gsi & 1;
            if (told >> gsi & 1)
                set_line(v, gsi, !level); /* it has been the other in between: an edge */
            set_line(v, gsi, level);
        }
        told = 0;
    } while ((levels_now(v) & followed) != levels);
}

/* An irqfd injects from a kernel work queue, perhaps after the guest has gone on. Here the lines are in the controllers when
 * KVM_RUN begins. */
static __attribute__((noinline, cold)) void raise_lines(struct sio_vcpu *v)
{
    if (v->wired)
        return; /* after the exit is complete: serve_wires */
    sio_vcpu_follow(v, v->client.lines);
    if (sio_client_traced(&v->client))
        sio_trace_delivered(&v->client, v->client.lines & SIO_WIRED_MASK, 0);
    v->client.lines = 0;
}

#if defined(__x86_64__)
static void interrupt(struct sio_vcpu *v, uint32_t vector)
{
    struct kvm_interrupt what = {.irq = vector};
    sio_syscall3(SYS_ioctl, v->fd, KVM_INTERRUPT, &what);
    v->run->ready_for_interrupt_injection = 0; /* until KVM says so again */
    if (sio_client_traced(&v->client))
        sio_trace_delivered(&v->client, vector, 1);
}
#else
static void interrupt(struct sio_vcpu *v, uint32_t vector) {}
#endif

/* ---- the VMM's half ------------------------------------------------------------------------------------------------ */

void *sio_worker_stack(uint64_t size)
{
    uint8_t *low = mmap(0, size + SIO_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (low == MAP_FAILED)
        return 0;
    mprotect(low, SIO_PAGE, PROT_NONE);
    return low + SIO_PAGE;
}

void sio_worker_stack_free(void *stack, uint64_t size) { munmap((uint8_t *)stack - SIO_PAGE, size + SIO_PAGE); }

/* clone(2) by hand: the child begins in entry(argument) on its own stack and never returns here. */
static long clone_onto(unsigned long flags, void *top, int *pidfd, void (*entry)(struct sio_vcpu *), struct sio_vcpu *argument)
{
    uint64_t *sp = (uint64_t *)((uintptr_t)top & ~15ul);
    *--sp = (uint64_t)(uintptr_t)argument;
    *--sp = (uint64_t)(uintptr_t)entry;
#if defined(__x86_64__)
    long ret;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "pop %%rax\n\t"
                     "pop %%rdi\n\t"
                     "call *%%rax\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(ret)
                     : "a"((long)SYS_clone), "D"(flags), "S"(sp), "d"(pidfd), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory", "cc");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_clone;
    register long x0 __asm__("x0") = (long)flags;
    register long x1 __asm__("x1") = (long)sp;
    register long x2 __asm__("x2") = (long)pidfd;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "ldp x9, x0, [sp], #16\n\t"
                     "blr x9\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
                     : "x9", "memory", "cc");
    return x0;
#endif
}

int sio_worker_spawn(struct sio_vcpu *v, void *stack, uint64_t size, int *pidfd)
{
    uint64_t all = ~0ull, before = 0;
    /* Between the clone and take_signals the child must not run one of the interpreter's handlers. */
    sio_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, 8);
    long pid = clone_onto(CLONE_VM | CLONE_FILES | CLONE_PIDFD | SIGCHLD, (uint8_t *)stack + size, pidfd, run_worker, v);
    sio_syscall4(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, 8);
    return (int)pid;
}

void sio_vcpu_command(struct sio_vcpu *v, uint32_t what, int pid)
{
    sio_publish(&v->command, what); /* SP-COMMAND */
    if (what != SIO_RUN)
        sio_store_relaxed(&v->run->immediate_exit, 1);
    sio_fence_full();
    sio_futex_wake(&v->command);
    if (pid > 0 && what != SIO_RUN)
        sio_syscall3(SYS_kill, pid, SIO_KICK_SIGNAL, 0);
}

static void kick(struct sio_vcpu *v, int pid)
{
    sio_store_relaxed(&v->run->immediate_exit, 1);
    sio_fence_full();
    if (pid > 0)
        sio_syscall3(SYS_kill, pid, SIO_KICK_SIGNAL, 0);
}

void sio_vcpu_lines(struct sio_vcpu *v, uint32_t lines, int pid)
{
    sio_set_bits(&v->lines, lines); /* SP-WIRES */
    if (lines == SIO_LINE_OUTPUT_MOVED && sio_load_relaxed(&v->output))
        return; /* it knows, and looks again before it enters the guest */
    kick(v, pid);
}

void sio_vcpu_inspect(struct sio_vcpu *v, int pid)
{
    sio_publish(&v->inspect, 1); /* SP-COMMAND */
    kick(v, pid);
}

void sio_vcpu_answer(struct sio_vcpu *v, uint32_t verdict)
{
    sio_store_release(&v->question, verdict); /* SP-COMMAND */
    sio_futex_wake(&v->question);
}

uint32_t sio_vcpu_state(const struct sio_vcpu *v) { return sio_load_acquire(&v->state); }

uint32_t sio_vcpu_wait(struct sio_vcpu *v, uint32_t state, uint64_t timeout_ns)
{
    if (sio_vcpu_state(v) == state)
        sio_futex_wait(&v->state, state, timeout_ns);
    return sio_vcpu_state(v);
}

int sio_die_with_parent(int parent)
{
    sio_syscall6(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    return sio_syscall3(SYS_getppid, 0, 0, 0) == parent ? 0 : -ESRCH;
}
