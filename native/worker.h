/* A vCPU worker: a process of its own, in the VMM's address space, that runs one vCPU and nothing else.
 *
 * struct sio_vcpu lives in the VMM's private memory and outlives the worker: it holds the fabric client with its journal,
 * so a fresh worker on the same vCPU goes on where a killed one stopped. All times in nanoseconds unless they say ticks.
 */
#ifndef SHARDIO_WORKER_H
#define SHARDIO_WORKER_H

#include "client.h"

#include <linux/kvm.h>

#define SIO_EXIT_REASONS 48u
#define SIO_SENTINEL 0x53494f21u   /* in kvm_run->exit_reason: the last exit is complete */
#define SIO_RETRIES 100000u        /* entries in a row that may bring nothing to do */
#define SIO_KICK_SIGNAL 10         /* SIGUSR1: interrupts KVM_RUN and futex waits */

enum sio_command { SIO_RUN, SIO_PAUSE, SIO_STOP };
enum sio_vcpu_state {
    SIO_NEW,        /* no worker yet */
    SIO_RUNNING,
    SIO_PAUSED,     /* parked between exits, the last one complete */
    SIO_ASKING,     /* parked at an exit that this loop does not serve, until the VMM has said what becomes of it */
    SIO_STOPPED,    /* told to stop; the worker has ended */
    SIO_HALTED,     /* HLT without an in-kernel irqchip: nothing can wake it */
    SIO_SHUTDOWN,   /* triple fault */
    SIO_SYSTEM,     /* KVM_EXIT_SYSTEM_EVENT: detail is the type */
    SIO_FAILED,     /* FAIL_ENTRY, INTERNAL_ERROR, an exit that nobody handles or that keeps coming: reason is the exit's */
    SIO_BROKEN,     /* KVM_RUN itself failed, or says EAGAIN for ever: detail is the errno */
};

/* What becomes of an exit that the loop does not serve. */
enum sio_question {
    SIO_NO_QUESTION,
    SIO_ASKED,      /* written by the worker, the others by the VMM */
    SIO_GO_ON,      /* enter the guest again: it has been brought further */
    SIO_TRY_AGAIN,  /* enter the guest again, where it was: at most SIO_RETRIES times in a row */
    SIO_GIVE_UP,    /* the vCPU ends */
};

#define SIO_WATCHES 4u

/* Memory that a debugger watches: its bytes in this address space, and what they were. */
struct sio_watch {
    const uint8_t *at;
    uint32_t size;              /* 1 to 8 */
    uint8_t value[8];
};

#define SIO_WIRED_PIC 1
#define SIO_WIRED_IOAPIC 2

struct sio_vcpu {
    /* set up by the VMM before the first worker */
    struct sio_client client;
    struct kvm_run *run;
    uint32_t run_size;
    int32_t fd;
    int32_t event;              /* eventfd rung at every change of state */
    int32_t parent;             /* pid of the VMM */
    int32_t affinity;           /* CPU, -1: anywhere */
    int32_t vm_fd;              /* the VM, for KVM_IRQ_LINE; -1: lines are not raised here */
    int32_t wired;              /* SIO_WIRED_*: interrupt controllers that are devices. Written by the VMM at any time */
    uint32_t followed;          /* lines that in-kernel controllers are to follow up and down. Written by the VMM at any time */
    int32_t asks;               /* the VMM judges exits that the loop does not serve */
    /* written by the VMM */
    uint32_t command;           /* futex */
    uint32_t lines;             /* wired lines that moved outside of accesses (SIO_LINE_*); the worker clears what it takes */
    uint32_t inspect;           /* the VMM wants to see where the guest is; the worker clears it, and asks about KVM_EXIT_INTR */
    uint32_t question;          /* futex, and journal: enum sio_question */
    /* a debugger's; written by the VMM while the vCPU stands still */
    uint32_t stepping;          /* an access ends a step: KVM's emulator goes on to the instruction behind it */
    uint32_t watches;           /* KVM steps, and the vCPU asks only once one of these has changed */
    struct sio_watch watch[SIO_WATCHES];
    /* written by the worker */
    uint32_t state;             /* futex */
    uint32_t reason;            /* the exit's KVM_EXIT_* when state is HALTED or beyond */
    uint64_t detail;
    uint32_t spawns;
    uint64_t exits[SIO_EXIT_REASONS];
    uint64_t other_exits;
    uint64_t string_exits;
    uint64_t interrupted;       /* KVM_RUN returned EINTR */
    uint64_t retried;           /* ... or EAGAIN: an AP that waits for its SIPI */
    uint64_t wait_ticks;        /* inside accesses */
    uint64_t retry_accesses;    /* a measure of the accesses made when an entry brought nothing the last time; */
    uint64_t retry_ticks;       /* when that was; */
    uint32_t retries;           /* and how many there were in a row */
    uint64_t fragment;          /* journal of an MMIO access that goes byte by byte: serve_bytes */
    /* vcpu_wires.h: */
    uint32_t output;            /* the PIC's output was high at the last look */
    uint32_t vector;            /* of an INTA cycle, to be delivered; 0: none */
    uint32_t wire_step;         /* journal: the message to a controller that is due or out */
    uint64_t wire;              /* journal: what it writes */
};

/* Starts a worker: clone(CLONE_VM | CLONE_FILES | SIGCHLD) on the stack [stack, stack + size). The calling thread's death kills
 * it (PR_SET_PDEATHSIG). Returns its pid and, through `pidfd`, its pidfd; -errno on failure. */
int sio_worker_spawn(struct sio_vcpu *vcpu, void *stack, uint64_t size, int *pidfd);
/* A stack with a guard page below it: MAP_FAILED is returned as 0. */
void *sio_worker_stack(uint64_t size);
void sio_worker_stack_free(void *stack, uint64_t size);

/* For a shard: SIGKILL when the thread that spawned this process ends. -ESRCH: `parent` is not its parent (any more). */
int sio_die_with_parent(int parent);

/* Gives a command; a running worker is kicked out of KVM_RUN (`pid` 0: there is none). */
void sio_vcpu_command(struct sio_vcpu *vcpu, uint32_t command, int pid);
/* Has the worker leave the guest and ask, although there is no exit. */
void sio_vcpu_inspect(struct sio_vcpu *vcpu, int pid);
/* The verdict on a vCPU that is SIO_ASKING. */
void sio_vcpu_answer(struct sio_vcpu *vcpu, uint32_t verdict);
/* Waits until the state is not `state`, at most timeout_ns; returns the state. */
uint32_t sio_vcpu_wait(struct sio_vcpu *vcpu, uint32_t state, uint64_t timeout_ns);
uint32_t sio_vcpu_state(const struct sio_vcpu *vcpu);
/* Lines of in-kernel controllers moved (SIO_LINE_*): pulses them, or makes followed ones what they are now (KVM_IRQ_LINE). */
void sio_vcpu_follow(const struct sio_vcpu *vcpu, uint32_t lines);
/* Wired lines moved (SIO_LINE_*): the worker is kicked, and tells the controllers. */
void sio_vcpu_lines(struct sio_vcpu *vcpu, uint32_t lines, int pid);

#endif
