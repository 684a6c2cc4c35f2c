/* What the files of a software vCPU's worker share: one worker a process, so its state is one object. */
#ifndef SHARDIO_SOFT_WORKER_H
#define SHARDIO_SOFT_WORKER_H

#include "soft.h"
#include "soft_apic.h"
#include "unicorn_api.h"

struct sio_soft_worker {
    struct unicorn u;
    uc_engine *uc;
    struct sio_soft *me;
    struct sio_soft_machine *machine;
    struct sio_raise *raise;
    const int32_t *doorbell_fd;
    uint8_t *memory;

    uint32_t eip;               /* where to go on, when nothing executes */
    uint32_t begun;             /* this process has taken its vCPU over */
    /* why the guest was left */
    uint32_t stopped;           /* by a hook */
    uint32_t exception;         /* + 1 */
    /* looked at in every block */
    uint32_t seen;              /* raise->sequence, as last acted on */
    uint32_t armed;             /* an interrupt waits for the guest to take interrupts */
    int32_t fuel;               /* blocks until the next look at the clock; below 0: it is overdue */
    uint32_t block_end;         /* linear address behind the last block that began */
    uint32_t block_before;      /* the same of the one before */
    uint32_t stopped_at;        /* linear address of the block that a hook did not let begin */
    uint64_t slice_end;         /* ticks: another vCPU's turn */
    uint32_t interrupted_at;    /* linear address at which the last interrupt was taken */
    uint32_t run_first;         /* a block that is to be executed before an interrupt is taken */
    /* the instruction at hand */
    uint32_t fresh;             /* another block has begun since its last access */
    uint32_t saved;             /* its registers are in the record */
    uint32_t replay, at;        /* answers that a predecessor left, and how many were given out */
    uint32_t replaying;
    /* an access to memory-mapped registers, while Unicorn takes it apart */
    uint64_t word, word_at;
    uint32_t word_size;
    uint32_t bytes_left;
    uint64_t next_byte;
    struct sio_soft_code *code;
    /* a debugger: soft_debug.c */
    uint32_t debugging;         /* its hooks are set */
    uint32_t step_from;         /* linear address of the instruction that executes without a look, */
    uint32_t step_first;        /* if nothing has executed since the guest went on */
    uint32_t watched;           /* a watchpoint was met in the instruction at hand: its number + 1 */
};

extern struct sio_soft_worker sio_soft;

static inline uint32_t soft_get(int reg)
{
    uint32_t value = 0;
    sio_soft.u.reg_read(sio_soft.uc, reg, &value);
    return value;
}
static inline void soft_set(int reg, uint32_t value) { sio_soft.u.reg_write(sio_soft.uc, reg, &value); }

/* ---- soft_events.c ---- */
/* Puts the registers where `entry` says; those not named there are as after reset. */
void soft_apply_entry(const struct sio_soft_entry *entry);
/* INIT's state at CS:IP = vector << 8 : 0, or at the reset vector below 1 MiB for vector 0xff. */
void soft_start_up(uint32_t vector);
/* Puts the registers where the VMM reads them. */
void soft_show(void);
/* Takes the registers that the VMM has put there. */
void soft_take_registers(void);
/* Delivers vector: the guest goes on in its handler, at sio_soft.eip. 0, or -EFAULT where it cannot be (a triple fault). */
int soft_deliver(uint32_t vector, int exception);
/* Whether the block that begins at linear address `at` is shadowed by STI, MOV SS or POP SS at the end of the one before. */
int soft_shadowed(uint32_t at);

/* ---- soft_code.c: code that somebody else writes ---- */
void soft_code_note(uint32_t linear);
/* Forgets what was translated, where the code has changed meanwhile. */
void soft_code_check(void);
void soft_code_forget(void);

/* ---- soft_hooks.c: Unicorn's hooks ---- */
void soft_stop(void);
int soft_open(const struct sio_soft_start *start);
/* ---- soft_worker.c ---- */
/* One access of the guest, made now. Returns what was read. */
uint64_t soft_access(uint32_t space, uint64_t address, uint32_t size, int write, uint64_t data);
/* The pieces of it. The registers, exact, into the record; then what takes over where; the record of the exit; message and answer,
 * which does not come back where the vCPU is to stop meanwhile. */
void soft_save(void);
void soft_phase(uint32_t which);
void soft_write_record(uint32_t space, uint64_t address, uint32_t size, int write, uint64_t data);
void soft_answer(void);
uint64_t soft_answer_in_record(uint32_t space, uint32_t size);
/* Between two instructions: whoever comes next can go on from here. */
void soft_rest(void);
void soft_end_if_told(void);

/* ---- soft_debug.c: a debugger ---- */
/* What the VMM has asked for is in force; `linear`: where the guest goes on. 0, or an error of Unicorn's. */
int soft_debug_begin(uint32_t linear);

/* ---- soft_turns.c ---- */
void soft_take_turn(void);
void soft_give_turn(void);
/* Another's turn, where one waits: it is let get there first. */
void soft_pass_turn(void);

/* ---- soft_interrupts.c ---- */
/* The controllers know of what an access brought, and the local APICs of what these send, before the guest goes on. */
void soft_tell_after_access(void);
/* Everything that came in. In turn alone, between two instructions. 0, or -EFAULT: the guest has shut down. */
int soft_take_events(void);
/* A block begins, and something is to be looked at: whether the guest is to be left. */
int soft_look(uint32_t linear);

#endif
