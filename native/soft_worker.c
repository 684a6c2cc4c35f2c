/* The software vCPU's worker: the loop of vcpu_loop.h around Unicorn.
 *
 * Facts. KVM leaves the guest in the middle of an access and comes back with the answer; a hook cannot be left. Unicorn's record
 * of the CPU is exact where a hook for an access is called, and between two blocks.
 *
 * Consequences. A hook makes the access itself, by the same loop's `serve`: exit record, journal, message, answer. The registers
 * are in the shared record before the exit record is, so a successor restores them, completes the access by the journal, and
 * executes the instruction again, with the answers that it has had. A worker that dies while it executes has no successor:
 * what it did to memory since is not known (`phase`).
 */
#include "soft_worker.h"
#include "vcpu_loop.h"

#define SLEEP_NS 1000000000u

void soft_phase(uint32_t which) { sio_store_release(&sio_soft.me->phase, which); }

void soft_end_if_told(void)
{
    struct sio_vcpu *v = &sio_soft.me->vcpu;
    if (command(v) == SIO_STOP) {
        end(v, SIO_STOPPED);
        leave();
    }
}

/* ---- accesses ------------------------------------------------------------------------------------------------------ */

void soft_save(void) { sio_soft.u.context_save(sio_soft.uc, (uc_context *)sio_soft.me->context); }

/* Between two instructions: whoever comes next can go on from here. */
void soft_rest(void)
{
    if (sio_soft.replaying)
        return; /* and from where its predecessor was, still */
    soft_set(UC_X86_REG_EIP, sio_soft.eip);
    soft_save();
    sio_soft.me->answered = 0;
    soft_phase(SIO_SOFT_REST);
}

/* The record of an access, complete with its reason. */
void soft_write_record(uint32_t space, uint64_t address, uint32_t size, int write, uint64_t data)
{
    struct kvm_run *run = sio_soft.me->vcpu.run;
    sio_soft.me->space = space;
    if (space == SIO_PIO) {
        run->io.direction = write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
        run->io.size = (uint8_t)size;
        run->io.port = (uint16_t)address;
        run->io.count = 1;
        run->io.data_offset = 4096;
        __builtin_memcpy((uint8_t *)run + 4096, &data, 8);
    } else {
        run->mmio.phys_addr = address;
        run->mmio.len = size;
        run->mmio.is_write = (uint8_t)write;
        __builtin_memcpy(run->mmio.data, &data, 8);
    }
    sio_store_release(&run->exit_reason, space == SIO_PIO ? KVM_EXIT_IO : KVM_EXIT_MMIO);
}

uint64_t soft_answer_in_record(uint32_t space, uint32_t size)
{
    struct kvm_run *run = sio_soft.me->vcpu.run;
    uint64_t data;
    __builtin_memcpy(&data, space == SIO_PIO ? (uint8_t *)run + 4096 : run->mmio.data, 8);
    return size < 8 ? data & ((1ull << 8 * size) - 1) : data;
}

/* Has the exit in the record served; does not come back where the vCPU is to stop meanwhile. */
void soft_answer(void)
{
    struct sio_vcpu *v = &sio_soft.me->vcpu;
    count_exit(v, v->run->exit_reason);
    uint32_t state = serve(v);
    if (state != SIO_RUNNING) {
        soft_show();
        soft_give_turn();
        end(v, state);
        leave();
    }
}

static void raise_lines(struct sio_vcpu *v)
{
    sio_soft.me->pulses |= v->client.lines;
    v->client.lines = 0;
}

/* `wired` is not set here: the local APIC asks the PIC for its vector itself. */
static void interrupt(struct sio_vcpu *v, uint32_t vector) {}

/* Whether a doorbell takes this write. */
static int rings(uint32_t space, uint64_t address, uint32_t size, uint64_t data)
{
    for (uint32_t i = 0; i < sio_soft.machine->doorbells && i < SIO_SOFT_DOORBELLS; i++) {
        const struct sio_soft_doorbell *d = &sio_soft.machine->doorbell[i];
        uint64_t mask = size < 8 ? (1ull << 8 * size) - 1 : ~0ull;
        if (sio_load_acquire(&d->active) && d->space == space && d->address == address && (!d->length || d->length == size) &&
            (!d->match || d->value == (data & mask))) {
            sio_eventfd_ring(sio_soft.doorbell_fd[i]);
            return 1;
        }
    }
    return 0;
}

/* Message to a shard, and its answer. */
static uint64_t request(uint32_t space, uint64_t address, uint32_t size, int write, uint64_t data)
{
    struct sio_soft *me = sio_soft.me;
    int survives = me->answered <= SIO_SOFT_ANSWERS;
    if (!sio_soft.saved) {
        soft_save();
        sio_soft.saved = 1;
    }
    soft_write_record(space, address, size, write, data);
    if (survives)
        soft_phase(SIO_SOFT_ACCESS);
    soft_give_turn();
    soft_answer();
    soft_take_turn();
    return soft_answer_in_record(space, size);
}

static uint64_t local_apic(uint32_t offset, uint32_t size, int write, uint64_t data)
{
    if (!write)
        return sio_apic_read(sio_soft.me, offset & ~15u) >> (8 * (offset & 3));
    if (size == 4 && !(offset & 15))
        sio_apic_write(sio_soft.machine, sio_soft.raise, sio_soft.me, offset, (uint32_t)data);
    return 0;
}

uint64_t soft_access(uint32_t space, uint64_t address, uint32_t size, int write, uint64_t data)
{
    struct sio_soft *me = sio_soft.me;
    if (sio_soft.replaying && sio_soft.at < sio_soft.replay) {
        uint64_t had = me->answer[sio_soft.at++];
        sio_soft.replaying = sio_soft.at < sio_soft.replay;
        if (!sio_soft.replaying) {
            sio_soft.fresh = 0;
            soft_tell_after_access();
        }
        return had;
    }
    uint32_t eip = soft_get(UC_X86_REG_EIP);
    if (sio_soft.fresh || eip != me->eip) {
        sio_soft.fresh = sio_soft.saved = 0;
        me->eip = eip;
        me->answered = 0;
    }
    me->answered++;
    uint64_t answer = 0;
    if (space == SIO_MMIO && sio_soft.machine->apic && (address & ~4095ull) == SIO_APIC_BASE)
        answer = local_apic((uint32_t)address & 4095, size, write, data);
    else if (!write || !rings(space, address, size, data))
        answer = request(space, address, size, write, data);
    if (me->answered <= SIO_SOFT_ANSWERS)
        me->answer[me->answered - 1] = answer;
    soft_tell_after_access();
    return answer;
}

/* ---- entering the guest -------------------------------------------------------------------------------------------- */

/* Takes the vCPU over: from its entry state, or from where a dead predecessor was. */
static int begin(void)
{
    struct sio_soft *me = sio_soft.me;
    uint32_t was = sio_load_acquire(&me->phase);
    sio_soft.begun = 1;
    sio_soft.fuel = 1;
    sio_soft.seen = sio_load_acquire(&sio_soft.raise->sequence) - 1;
    sio_soft.block_end = ~0u;
    if (was == SIO_SOFT_RUN)
        return -ENOTRECOVERABLE;
    if (was == SIO_SOFT_ENTRY) {
        sio_apic_reset(me);
        soft_apply_entry(&me->entry);
        me->waits_for_sipi = sio_soft.machine->apic && me->index != 0;
        return 0;
    }
    sio_soft.u.context_restore(sio_soft.uc, (uc_context *)me->context);
    /* Inside a hook the arithmetic flags are where Unicorn computes them from; it begins with what EFLAGS says. */
    soft_set(UC_X86_REG_EFLAGS, soft_get(UC_X86_REG_EFLAGS));
    sio_soft.eip = soft_get(UC_X86_REG_EIP);
    if (was == SIO_SOFT_ACCESS)
        me->answer[me->answered - 1] = soft_answer_in_record(me->space, 8);
    if ((was == SIO_SOFT_ACCESS || was == SIO_SOFT_WIRES) && me->answered) {
        sio_soft.replay = me->answered;
        sio_soft.replaying = sio_soft.saved = 1;
    }
    if (was == SIO_SOFT_INTA) {
        soft_phase(SIO_SOFT_RUN);
        int status = soft_deliver((uint32_t)soft_answer_in_record(SIO_MMIO, 4) & 0xff, 0);
        soft_rest();
        return status;
    }
    return 0;
}

/* The vCPU has nothing to do: sleeps until somebody has something for it. */
static void sleep_on(void)
{
    struct sio_raise *raise = sio_soft.raise;
    uint64_t due = sio_apic_due(sio_soft.me), now = sio_now(), wait = SLEEP_NS;
    if (due)
        wait = due > now ? due - now : 0;
    __atomic_fetch_add(&raise->sleepers, 1, __ATOMIC_SEQ_CST); /* SP-WAKEUP: before the kernel looks at the sequence */
    if (wait && !sio_load_relaxed(&sio_soft.me->vcpu.run->immediate_exit))
        sio_futex_wait(&raise->sequence, sio_soft.seen, wait < SLEEP_NS ? wait : SLEEP_NS);
    __atomic_fetch_sub(&raise->sleepers, 1, __ATOMIC_SEQ_CST);
}

/* In protected mode code segments are taken for flat: this is for reports, and for pages to watch. */
static uint32_t linear_at(uint32_t eip)
{
    return soft_get(UC_X86_REG_CR0) & 1 ? eip : (soft_get(UC_X86_REG_CS) << 4) + eip;
}

static long leave_guest(uint32_t reason)
{
    soft_rest();
    soft_show();
    soft_give_turn();
    sio_store_release(&sio_soft.me->vcpu.run->exit_reason, reason);
    return 0;
}

/* The guest cannot go on: the instruction at which, and Unicorn's number for why. */
static long fail(int error)
{
    struct kvm_run *run = sio_soft.me->vcpu.run;
    run->emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run->emulation_failure.ndata = 5;
    run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run->emulation_failure.insn_size = 15;
    __builtin_memset(run->emulation_failure.insn_bytes, 0, 15);
    sio_soft.u.mem_read(sio_soft.uc, linear_at(sio_soft.eip), run->emulation_failure.insn_bytes, 15);
    sio_soft.me->vcpu.detail = (uint64_t)error;
    return leave_guest(KVM_EXIT_INTERNAL_ERROR);
}

/* What the VMM has changed while the vCPU stood still. An instruction that a predecessor left half done is not gone on with. */
static int take_changes(void)
{
    struct sio_soft *me = sio_soft.me;
    uint32_t vector = sio_load_acquire(&me->inject); /* SP-COMMAND */
    if (!vector && !sio_load_acquire(&me->changed))
        return 0;
    soft_take_turn();
    sio_soft.replaying = 0;
    soft_phase(SIO_SOFT_RUN);
    if (me->changed)
        soft_take_registers();
    int status = vector ? soft_deliver(vector - 1, vector - 1 < 32) : 0;
    me->inject = me->changed = 0;
    soft_rest();
    return status;
}

static long enter_guest(struct sio_vcpu *v)
{
    struct sio_soft *me = sio_soft.me;
    int status;
    if (!sio_soft.begun && (status = begin()))
        return status == -ENOTRECOVERABLE ? status : leave_guest(KVM_EXIT_SHUTDOWN);
    if (take_changes())
        return leave_guest(KVM_EXIT_SHUTDOWN);
    for (;;) {
        if (sio_load_relaxed(&v->run->immediate_exit)) {
            soft_rest();
            soft_show();
            soft_give_turn();
            return -EINTR;
        }
        soft_take_turn();
        /* A single step leaves interrupts for later: they would be all that a debugger's user gets to see. */
        int executes = !me->halted && !me->waits_for_sipi;
        if (!sio_soft.replaying && !(me->debug.step && executes) && soft_take_events())
            return leave_guest(KVM_EXIT_SHUTDOWN);
        if (me->halted || me->waits_for_sipi) {
            soft_rest();
            soft_give_turn();
            sleep_on();
            continue;
        }
        if (sio_soft.machine->vcpus > 1 && sio_ticks() >= sio_soft.slice_end && sio_load_relaxed(&sio_soft.machine->token_waiters)) {
            soft_rest();
            soft_pass_turn();
        }
        if (!sio_soft.replaying)
            soft_phase(SIO_SOFT_RUN);
        sio_soft.stopped = sio_soft.exception = sio_soft.stopped_at = 0;
        me->debug.stop = SIO_SOFT_NO_STOP;
        if (soft_debug_begin(linear_at(sio_soft.eip)))
            return -EIO;
        soft_code_note(linear_at(sio_soft.eip));
        int error = sio_soft.u.emu_start(sio_soft.uc, sio_soft.eip, ~0ull, 0, 0);
        sio_soft.eip = soft_get(UC_X86_REG_EIP);
        sio_soft.saved = sio_soft.replaying;
        if (error)
            return fail(error);
        if (me->debug.stop)
            return leave_guest(KVM_EXIT_DEBUG);
        if (sio_soft.exception) {
            if (soft_deliver(sio_soft.exception - 1, 1))
                return leave_guest(KVM_EXIT_SHUTDOWN);
        } else if (!sio_soft.stopped) {
            sio_soft.block_end = ~0u;
            if (!sio_soft.machine->apic)
                return leave_guest(KVM_EXIT_HLT);
            me->halted = 1;
        }
    }
}

void sio_soft_run(const struct sio_soft_start *s)
{
    struct sio_soft *me = &s->machine->cpu[s->index];
    struct sio_vcpu *v = &me->vcpu;
    sio_soft.me = me;
    sio_soft.machine = s->machine;
    sio_soft.raise = s->raise_page;
    sio_soft.doorbell_fd = s->doorbell_fd;
    sio_soft.memory = s->memory;
    v->run = (struct kvm_run *)me->run;
    v->event = s->event;
    int status = soft_open(s);
    if (status) {
        v->detail = (uint64_t)-status;
        end(v, SIO_BROKEN);
        leave();
    }
    sio_client_attach(&v->client, s->fabric);
    sio_membarrier_register();
    v->client.waiter.membarrier = s->fabric->membarrier;
    for (uint32_t i = 0; i < SIO_MAX_SHARDS; i++)
        v->client.doorbell[i] = s->shard_doorbell[i];
    run_worker(v);
}
