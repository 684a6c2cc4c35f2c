/* The software CPU's shared record: what the VMM and its vCPU workers, processes of their own, both map.
 *
 * Facts. Unicorn needs malloc and TLS, so a worker is a spawned process. Locked instructions of two processes are not atomic to
 * each other, so vCPUs execute one at a time: `token` names the one that does. An access waits without it.
 *
 * Consequences. What a successor needs to go on lies here: the client with its journal, the exit record, the registers at the
 * last point where they were exact (`phase` says which), the local APIC. Writers: the vCPU's worker, but for words that say so.
 */
#ifndef SHARDIO_SOFT_H
#define SHARDIO_SOFT_H

#include "raise.h"
#include "wires.h"
#include "worker.h"

#define SIO_EXTINT_LINE 255u           /* the PIC's output to the boot processor: EXTINT of shardio/interrupt/config.py */
#define SIO_SOFT_DOORBELLS 64u
#define SIO_SOFT_HOLES 33u            /* every other page of the space of a PC's adapters */
#define SIO_SOFT_RUN_BYTES 8192u        /* struct kvm_run, and a page of data behind it */
#define SIO_SOFT_CONTEXT_BYTES 16384u   /* at least Unicorn's own record of a CPU */
#define SIO_SOFT_ANSWERS 16u            /* accesses of one instruction */
#define SIO_SOFT_BREAKPOINTS 64u
#define SIO_SOFT_WATCHES 16u

/* Where a vCPU is, for the worker that follows a dead one. */
enum sio_soft_phase {
    SIO_SOFT_ENTRY,     /* nothing ran: the registers are those of `entry` */
    SIO_SOFT_REST,      /* between two instructions: `context` is exact */
    SIO_SOFT_ACCESS,    /* inside the instruction at which `context` is: the exit record is the guest's access, number `answered` */
    SIO_SOFT_WIRES,     /* the same, but that access is answered: the record is a message to the interrupt controllers */
    SIO_SOFT_INTA,      /* between two instructions: the record is the PIC's INTA cycle, its answer a vector to be delivered */
    SIO_SOFT_RUN,       /* executing: registers and memory are in pieces, nothing can take over here */
};

/* An entry state in neutral terms: shardio/entry.py. */
struct sio_soft_entry {
    uint32_t gpr[8];                    /* EAX ECX EDX EBX ESP EBP ESI EDI */
    uint32_t eip, eflags, cr0;
    uint32_t gdt_base, gdt_limit, idt_base, idt_limit;
    uint16_t selector[6];               /* ES CS SS DS FS GS */
};

struct sio_soft_registers {
    uint32_t gpr[8];                    /* as above */
    uint32_t eip, eflags, cr0, cr2, cr3, cr4;
    uint32_t gdt_base, gdt_limit, idt_base, idt_limit;
    uint16_t selector[6];
};

/* Local APIC, Intel SDM volume 3 chapter 11 (chapter 10 in older editions). */
struct sio_soft_apic {
    uint32_t id, tpr, ldr, dfr, svr, esr, esr_seen, icr[2];
    uint32_t lvt[6];                    /* timer, thermal, performance, LINT0, LINT1, error: registers 0x320 to 0x370 */
    uint32_t divide, initial;
    uint32_t isr[8], tmr[8], irr[8];
    uint64_t timer_begin, timer_due;    /* CLOCK_MONOTONIC, ns; due 0: it does not run */
};

/* What a debugger wants, and why the guest stands still for it: exit reason KVM_EXIT_DEBUG. */
enum sio_soft_stop { SIO_SOFT_NO_STOP, SIO_SOFT_STEP, SIO_SOFT_BREAKPOINT, SIO_SOFT_WATCH };
enum sio_soft_watched { SIO_SOFT_WATCH_READS = 1, SIO_SOFT_WATCH_WRITES = 2 };
struct sio_soft_watchpoint {
    uint32_t address, size, kind;       /* guest-physical; enum sio_soft_watched */
};
struct sio_soft_debug {
    /* writer: the VMM, while the vCPU stands still */
    uint32_t step;
    uint32_t breakpoints, watches;
    uint32_t breakpoint[SIO_SOFT_BREAKPOINTS];  /* linear addresses */
    struct sio_soft_watchpoint watch[SIO_SOFT_WATCHES];
    uint32_t resumed;                   /* the instruction at which the guest is executes without a look; the worker clears it */
    uint32_t wrote;                     /* guest memory was written: translated code may be out of date; the worker clears it */
    /* writer: the worker */
    uint32_t stop;                      /* enum sio_soft_stop */
    uint32_t watch_hit;                 /* number of the watchpoint */
};

struct sio_soft {
    struct sio_vcpu vcpu;
    uint32_t index;
    uint32_t phase;                     /* enum sio_soft_phase */
    uint32_t waits_for_sipi;
    uint32_t halted;
    uint32_t nmi_pending;
    uint32_t space;                     /* of the access in the record: SIO_PIO, SIO_MMIO */
    uint32_t answered;                  /* accesses of the instruction at hand, the one in flight included */
    uint32_t eip;                       /* of the instruction that `context` is at */
    uint32_t pulses;                    /* lines that replies raised, not sent to the controllers yet */
    uint32_t eoi_count;                 /* level interrupts that ended, for the IOAPIC */
    uint8_t eoi[8];
    uint64_t answer[SIO_SOFT_ANSWERS];
    uint64_t instructions_flushed;      /* how often code that others wrote was forgotten */
    struct sio_soft_registers shown;    /* for the VMM, when the vCPU stands still */
    /* writer: the VMM, while the vCPU stands still; the worker, when it has taken them */
    uint32_t changed;                   /* `shown` is what the guest goes on with */
    uint32_t inject;                    /* a vector that the guest is to take first, + 1 */
    struct sio_soft_debug debug;
    /* writers: other vCPUs */
    uint32_t irr_in[8], tmr_in[8];      /* vectors to accept, and which of them are level-triggered */
    uint32_t startup;                   /* bit 31: INIT, bit 30: SIPI with the vector in bits 0-7, bit 29: NMI */
    struct sio_soft_apic apic;
    struct sio_soft_entry entry;        /* writer: the VMM, before the first worker */
    uint8_t run[SIO_SOFT_RUN_BYTES] __attribute__((aligned(4096)));
    uint8_t context[SIO_SOFT_CONTEXT_BYTES] __attribute__((aligned(4096)));
};

/* What a handle of the raise page stands for. Writer: the VMM. */
enum sio_soft_route_kind { SIO_SOFT_NOWHERE, SIO_SOFT_LINE, SIO_SOFT_MESSAGE };
struct sio_soft_route {
    uint32_t kind, gsi;
    uint64_t address;
    uint32_t data;
    uint32_t generation;                /* even, and the same before and after: the rest belongs together */
};

/* A doorbell. Writer: the VMM. */
struct sio_soft_doorbell {
    uint32_t active;
    uint32_t length;                    /* 0: any */
    uint32_t space, match;              /* match: only writes of `value` */
    uint64_t address, value;
};

/* Pages without RAM below the hole of devices. */
struct sio_soft_hole {
    uint64_t base, size;
};

struct sio_soft_machine {
    uint32_t vcpus;
    uint32_t apic;                      /* local APICs, and HLT that sleeps; without, HLT ends the vCPU */
    uint32_t controllers;               /* SIO_WIRED_* of worker.h: which are at their wires. Writer: the VMM, at any time */
    uint32_t doorbells;                 /* those below may be active */
    uint64_t memory_size, low_memory;   /* RAM, and how much of it is below the hole */
    uint64_t rom_base, rom_size;
    uint64_t holes;                     /* in address order. Writer of these and what is above: the VMM, before the workers */
    uint64_t unused[2];
    uint32_t token __attribute__((aligned(64)));    /* futex: 0, or the vCPU that executes, + 1. Writers: workers; the VMM for a dead one */
    uint32_t token_waiters;
    uint32_t last_holder;               /* vCPU + 1 */
    uint32_t pad;
    uint64_t levels;                    /* lines as the controllers were told last. Writer: the token's holder */
    struct sio_soft_doorbell doorbell[SIO_SOFT_DOORBELLS] __attribute__((aligned(64)));
    struct sio_soft_route route[SIO_RAISE_HANDLES];
    struct sio_soft_hole hole[SIO_SOFT_HOLES];
    struct sio_soft cpu[] __attribute__((aligned(4096)));
};

/* ---- the VMM's half ---- */
/* Maps `size` bytes of a memfd, without a descriptor of its own; NULL with errno where that cannot be. */
void *sio_soft_map(int fd, uint64_t size);
void sio_soft_unmap(void *address, uint64_t size);
uint64_t sio_soft_size(uint32_t vcpus);
int sio_soft_init(struct sio_soft_machine *machine, uint32_t vcpus);
struct sio_soft *sio_soft_cpu(struct sio_soft_machine *machine, uint32_t index);
struct kvm_run *sio_soft_record(struct sio_soft *cpu);
/* Gives a command; wakes the worker wherever it waits (`pid` 0: there is none). */
void sio_soft_command(struct sio_soft *cpu, struct sio_raise *raise, uint32_t command, int pid);
/* Has the worker leave the guest and ask, although there is no exit. */
void sio_soft_inspect(struct sio_soft *cpu, struct sio_raise *raise, int pid);
/* The vCPU's worker is dead and reaped: whoever waits for the token gets it. Nonzero where another worker can take over. */
int sio_soft_bury(struct sio_soft_machine *machine, uint32_t index);
void sio_soft_set_route(struct sio_soft_machine *machine, uint32_t handle, uint32_t kind, uint32_t gsi, uint64_t address,
                        uint32_t data);
/* A doorbell whose entry is complete is in force, or is not any more. */
void sio_soft_doorbell(struct sio_soft_machine *machine, uint32_t slot, int active);

/* ---- the worker ---- */
struct sio_soft_start {
    const char *unicorn;                /* path of the library */
    struct sio_soft_machine *machine;
    struct sio_raise *raise_page;
    const struct sio_fabric *fabric;
    uint8_t *memory, *rom;
    uint32_t index;
    const int32_t *shard_doorbell;      /* of SIO_MAX_SHARDS; -1: none */
    const int32_t *doorbell_fd;         /* of SIO_SOFT_DOORBELLS */
    int32_t event;
};
/* Runs the vCPU until it ends, and the process with it. Where it cannot begin its state is SIO_BROKEN. */
void sio_soft_run(const struct sio_soft_start *start);

#endif
