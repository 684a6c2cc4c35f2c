/* Interrupts of a software vCPU: what shards raise, on its way to the controllers and the local APICs, and what the vCPU takes.
 *
 * Facts. Shards set bits in the raise page. Lines go on to controllers that are devices of a shard, by the wires (wires.h); messages
 * to local APICs, which are the workers' own. Whoever has the turn does so, whichever vCPU it is for.
 *
 * Consequences. What was raised during an access is where it belongs before the guest goes on. An interrupt is taken between two
 * blocks of instructions, not within one.
 */
#include "soft_worker.h"

#include "trace.h"

#define LOOK_BLOCKS 64

static void wire(uint64_t address, uint32_t size, uint64_t data)
{
    soft_write_record(SIO_MMIO, address, size, 1, data);
    soft_answer();
}

/* Tells the controllers of lines and ended interrupts. The turn is kept: they are told of levels in the order of turns. */
static void send_wires(uint64_t levels)
{
    struct sio_soft *me = sio_soft.me;
    uint64_t pulses = me->pulses & ((1u << SIO_WIRED_LINES) - 1);
    uint32_t there = sio_load_relaxed(&sio_soft.machine->controllers);
    while (me->eoi_count && (there & SIO_WIRED_IOAPIC)) {
        wire(SIO_IOAPIC_EOI, 4, me->eoi[me->eoi_count - 1]);
        me->eoi_count--;
    }
    if (pulses || levels != sio_soft.machine->levels) {
        if (there & SIO_WIRED_PIC)
            wire(SIO_PIC_WIRES + SIO_WIRES_LINES, 8, pulses | levels << 32);
        if (there & SIO_WIRED_IOAPIC)
            wire(SIO_IOAPIC_WIRES + SIO_WIRES_LINES, 8, pulses | levels << 32);
    }
    sio_soft.machine->levels = levels;
    me->pulses = me->eoi_count = 0;
}

/* Level of the PIC's output, and of all lines. */
static uint64_t raised_levels(uint32_t *extint)
{
    uint64_t lines = 0;
    *extint = 0;
    for (uint32_t w = 0; w < SIO_RAISE_WORDS; w++)
        for (uint64_t left = sio_load_relaxed(&sio_soft.raise->level[w]); left; left &= left - 1) {
            const struct sio_soft_route *r = &sio_soft.machine->route[w * 64 + (uint32_t)__builtin_ctzll(left)];
            if (sio_load_relaxed(&r->kind) != SIO_SOFT_LINE)
                continue;
            if (r->gsi == SIO_EXTINT_LINE)
                *extint = 1;
            else if (r->gsi < SIO_WIRED_LINES)
                lines |= 1ull << r->gsi;
        }
    return lines;
}

static void route_edge(uint32_t handle)
{
    const struct sio_soft_route *at = &sio_soft.machine->route[handle];
    struct sio_soft_route r;
    uint32_t generation;
    do {
        generation = sio_load_acquire(&at->generation);
        r = *at;
        sio_fence_acquire();
    } while ((generation & 1) || sio_load_relaxed(&at->generation) != generation);
    if (r.kind == SIO_SOFT_MESSAGE)
        sio_apic_message(sio_soft.machine, sio_soft.raise, r.address, r.data);
    else if (r.kind == SIO_SOFT_LINE && r.gsi < SIO_WIRED_LINES)
        sio_soft.me->pulses |= 1u << r.gsi;
}

/* Takes what shards have raised since. In turn alone. Returns the lines that are high now. */
static uint64_t take_raised(void)
{
    uint64_t words = __atomic_exchange_n(&sio_soft.raise->changed, 0, __ATOMIC_SEQ_CST);
    uint32_t ignored;
    for (uint64_t left = words; left; left &= left - 1) {
        uint32_t w = (uint32_t)__builtin_ctzll(left) % SIO_RAISE_WORDS;
        uint64_t edges = __atomic_exchange_n(&sio_soft.raise->edge[w], 0, __ATOMIC_SEQ_CST);
        for (; edges; edges &= edges - 1)
            route_edge(w * 64 + (uint32_t)__builtin_ctzll(edges));
    }
    return words ? raised_levels(&ignored) : sio_soft.machine->levels;
}

static int something_to_tell(uint64_t levels)
{
    return sio_soft.me->pulses || sio_soft.me->eoi_count || levels != sio_soft.machine->levels;
}

/* The controllers know of what an access brought, and the local APICs of what these send, before the guest goes on. */
void soft_tell_after_access(void)
{
    struct sio_soft *me = sio_soft.me;
    while (__builtin_expect(sio_load_relaxed(&sio_soft.raise->changed) || me->pulses || me->eoi_count, 0)) {
        uint64_t levels = take_raised();
        if (!something_to_tell(levels))
            break;
        if (!sio_soft.saved) {
            soft_save();
            sio_soft.saved = 1;
        }
        soft_phase(me->answered <= SIO_SOFT_ANSWERS ? SIO_SOFT_WIRES : SIO_SOFT_RUN);
        send_wires(levels);
    }
    soft_phase(SIO_SOFT_RUN);
}

static int takes_interrupts(void) { return (soft_get(UC_X86_REG_EFLAGS) >> 9 & 1) != 0; }

/* What shards have raised since, between two instructions. In turn alone. */
static void route_raised(void)
{
    uint64_t levels;
    while (something_to_tell(levels = take_raised())) {
        soft_rest();
        soft_phase(SIO_SOFT_WIRES);
        send_wires(levels);
        soft_phase(SIO_SOFT_REST);
    }
}

static int pic_asserts(void)
{
    uint32_t high;
    if (sio_soft.me->index != 0 || !(sio_load_relaxed(&sio_soft.machine->controllers) & SIO_WIRED_PIC) || !sio_apic_passes_extint(sio_soft.me))
        return 0;
    raised_levels(&high);
    return (int)high;
}

static uint32_t acknowledge_pic(void)
{
    soft_rest();
    soft_write_record(SIO_MMIO, SIO_PIC_WIRES + SIO_WIRES_INTA, 4, 0, 0);
    soft_phase(SIO_SOFT_INTA);
    soft_answer();
    return (uint32_t)soft_answer_in_record(SIO_MMIO, 4) & 0xff;
}

int soft_look(uint32_t linear)
{
    if (sio_soft.replaying || sio_soft.me->debug.step)
        return sio_load_relaxed(&sio_soft.me->vcpu.run->immediate_exit);
    if (sio_load_relaxed(&sio_soft.raise->sequence) != sio_soft.seen)
        return 1;
    if (sio_soft.armed)
        sio_soft.fuel--; /* the caller counts only where nothing else is to be looked at */
    if (sio_soft.fuel <= 0) {
        sio_soft.fuel = LOOK_BLOCKS;
        uint64_t due = sio_apic_due(sio_soft.me);
        if (due && sio_now() >= due)
            return 1;
        if (sio_soft.machine->vcpus > 1 && sio_ticks() >= sio_soft.slice_end && sio_load_relaxed(&sio_soft.machine->token_waiters))
            return 1;
    }
    if (linear == sio_soft.run_first) {
        sio_soft.run_first = 0;
        return 0;
    }
    return sio_soft.armed && takes_interrupts() && !soft_shadowed(linear);
}

/* INIT and SIPI, which end all else; true where the vCPU goes on elsewhere, or waits. */
static void take_startup(void)
{
    struct sio_soft *me = sio_soft.me;
    uint32_t came = __atomic_exchange_n(&me->startup, 0, __ATOMIC_SEQ_CST);
    if (came & SIO_STARTUP_INIT) {
        sio_apic_reset(me);
        me->halted = 0;
        me->nmi_pending = 0;
        me->waits_for_sipi = me->index != 0;
        soft_start_up(0xff);
        soft_code_forget();
    }
    if ((came & SIO_STARTUP_SIPI) && me->waits_for_sipi) {
        me->waits_for_sipi = 0;
        soft_start_up(came & 0xff);
        soft_code_forget();
    }
    if (came & SIO_STARTUP_NMI)
        me->nmi_pending = 1;
}

/* Everything that came in. In turn alone, between two instructions. 0, or -EFAULT: the guest has shut down. */
int soft_take_events(void)
{
    struct sio_soft *me = sio_soft.me;
    int status = 0;
    sio_soft.seen = sio_load_acquire(&sio_soft.raise->sequence);
    if (sio_load_relaxed(&me->startup))
        take_startup();
    route_raised();
    sio_apic_update(me);
    sio_soft.armed = 0;
    if (me->waits_for_sipi)
        return 0;
    sio_soft.block_before = sio_soft.block_end;
    int shadowed = !me->halted && soft_shadowed(sio_soft.stopped_at);
    if (me->nmi_pending && !shadowed) {
        me->nmi_pending = me->halted = 0;
        return soft_deliver(2, 0);
    }
    int from_pic = pic_asserts();
    if (!from_pic && sio_apic_pending(me) < 0)
        return 0;
    if (!takes_interrupts() || shadowed) {
        sio_soft.armed = 1;
        return 0;
    }
    /* A line that stays high interrupts again as soon as its handler returns. A real controller is slow enough for the guest to
     * get on a little, and so it does here. */
    if (sio_soft.stopped_at && sio_soft.stopped_at == sio_soft.interrupted_at) {
        sio_soft.run_first = sio_soft.stopped_at;
        sio_soft.interrupted_at = 0;
        sio_soft.armed = 1;
        return 0;
    }
    sio_soft.interrupted_at = sio_soft.stopped_at;
    me->halted = 0;
    uint32_t vector = from_pic ? acknowledge_pic() : (uint32_t)sio_apic_take(me);
    soft_phase(SIO_SOFT_RUN);
    status = soft_deliver(vector, 0);
    if (sio_client_traced(&me->vcpu.client))
        sio_trace_delivered(&me->vcpu.client, vector, 1);
    soft_rest();
    return status;
}
