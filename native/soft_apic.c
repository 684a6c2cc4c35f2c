/* The local APIC of a software vCPU: registers, priorities, timer, and messages between vCPUs.
 *
 * Facts. Other vCPUs' workers may send at any time: they set bits of `irr_in`, which the owner moves into its own IRR. All else is
 * touched by the owner alone. The timer counts at 1 GHz divided by the divide register, as KVM's does.
 */
#include "soft_apic.h"

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xA0, EOI = 0xB0, LDR = 0xD0, DFR = 0xE0, SVR = 0xF0, ISR = 0x100, TMR = 0x180,
       IRR = 0x200, ESR = 0x280, ICR_LOW = 0x300, ICR_HIGH = 0x310, LVT = 0x320, LVT_END = 0x380, INITIAL = 0x380, CURRENT = 0x390,
       DIVIDE = 0x3E0 };
enum { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR };
enum { FIXED, LOWEST, SMI, RESERVED, NMI, INIT, SIPI, EXTINT };

#define ENABLED (1u << 8)       /* of SVR */
#define MASKED (1u << 16)       /* of an LVT entry */
#define PERIODIC (1u << 17)
#define LEVEL (1u << 15)
#define ASSERTED (1u << 14)
#define ESR_ILLEGAL_VECTOR_SENT (1u << 5)

static int highest(const uint32_t *bits)
{
    for (int word = 7; word >= 0; word--)
        if (bits[word])
            return word * 32 + 31 - __builtin_clz(bits[word]);
    return -1;
}

static uint32_t priority(const struct sio_soft_apic *a)
{
    int serviced = highest(a->isr);
    uint32_t isr = serviced < 0 ? 0 : (uint32_t)serviced & 0xf0;
    return (a->tpr & 0xf0) >= isr ? a->tpr : isr;
}

void sio_apic_reset(struct sio_soft *c)
{
    struct sio_soft_apic *a = &c->apic;
    __builtin_memset(a, 0, sizeof *a);
    a->id = c->index << 24;
    a->dfr = ~0u;
    a->svr = 0xff;
    for (int i = 0; i < 6; i++)
        a->lvt[i] = MASKED;
    if (c->index == 0)
        a->lvt[LVT_LINT0] = EXTINT << 8;
}

/* ---- sending ------------------------------------------------------------------------------------------------------- */

static int addressed(const struct sio_soft *c, uint32_t destination, int logical)
{
    const struct sio_soft_apic *a = &c->apic;
    if (!logical)
        return destination == 0xff || destination == a->id >> 24;
    uint32_t mine = sio_load_relaxed(&a->ldr) >> 24;
    if (sio_load_relaxed(&a->dfr) >> 28 == 0xf)
        return (mine & destination) != 0;
    return (mine >> 4 == destination >> 4 || destination >> 4 == 0xf) && (mine & destination & 0xf) != 0;
}

static void accept(struct sio_soft *to, uint32_t vector, int level)
{
    uint32_t bit = 1u << (vector & 31);
    if (!(sio_load_relaxed(&to->apic.svr) & ENABLED))
        return;
    if (level)
        __atomic_fetch_or(&to->tmr_in[vector / 32], bit, __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(&to->tmr_in[vector / 32], ~bit, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&to->irr_in[vector / 32], bit, __ATOMIC_SEQ_CST);
}

static void start_up(struct sio_soft *to, uint32_t mode, uint32_t vector)
{
    if (mode == INIT)
        __atomic_store_n(&to->startup, SIO_STARTUP_INIT, __ATOMIC_SEQ_CST); /* a SIPI before it counts no more */
    else
        __atomic_fetch_or(&to->startup, mode == SIPI ? SIO_STARTUP_SIPI | (vector & 0xff) : SIO_STARTUP_NMI, __ATOMIC_SEQ_CST);
}

/* To the vCPUs of a bit set. */
static void deliver(struct sio_soft_machine *m, struct sio_raise *raise, uint64_t targets, uint32_t mode, uint32_t vector, int level)
{
    struct sio_soft *lowest = 0;
    for (uint32_t i = 0; i < m->vcpus; i++) {
        struct sio_soft *to = &m->cpu[i];
        if (!(targets >> i & 1))
            continue;
        if (mode == LOWEST) {
            if ((sio_load_relaxed(&to->apic.svr) & ENABLED) && (!lowest || to->apic.tpr < lowest->apic.tpr))
                lowest = to;
        } else if (mode == FIXED)
            accept(to, vector, level);
        else if (mode == NMI || mode == INIT || mode == SIPI)
            start_up(to, mode, vector);
    }
    if (lowest)
        accept(lowest, vector, level);
    sio_raise_wake(raise);
}

static uint64_t addressees(struct sio_soft_machine *m, uint32_t destination, int logical)
{
    uint64_t targets = 0;
    for (uint32_t i = 0; i < m->vcpus; i++)
        if (addressed(&m->cpu[i], destination, logical))
            targets |= 1ull << i;
    return targets;
}

void sio_apic_message(struct sio_soft_machine *m, struct sio_raise *raise, uint64_t address, uint32_t data)
{
    int logical = (address >> 2 & 1) != 0;
    uint32_t mode = data >> 8 & 7, vector = data & 0xff;
    if ((mode == FIXED || mode == LOWEST) && vector < 16)
        return;
    deliver(m, raise, addressees(m, (uint32_t)(address >> 12) & 0xff, logical), mode, vector, (data & LEVEL) != 0);
}

static void send(struct sio_soft_machine *m, struct sio_raise *raise, struct sio_soft *c, uint32_t command)
{
    uint64_t all = m->vcpus == 64 ? ~0ull : (1ull << m->vcpus) - 1, me = 1ull << c->index, targets;
    uint32_t mode = command >> 8 & 7, vector = command & 0xff;

    if (mode == INIT && (command & LEVEL) && !(command & ASSERTED))
        return; /* INIT level de-assert: processors since the Pentium 4 ignore it */
    if ((mode == FIXED || mode == LOWEST) && vector < 16) {
        c->apic.esr |= ESR_ILLEGAL_VECTOR_SENT;
        return;
    }
    switch (command >> 18 & 3) {
    case 1: targets = me; break;
    case 2: targets = all; break;
    case 3: targets = all & ~me; break;
    default: targets = addressees(m, c->apic.icr[1] >> 24, (command >> 11 & 1) != 0);
    }
    deliver(m, raise, targets, mode, vector, 0);
}

/* ---- timer --------------------------------------------------------------------------------------------------------- */

static uint32_t divide_shift(const struct sio_soft_apic *a)
{
    return (((a->divide & 3) | (a->divide >> 1 & 4)) + 1) & 7;
}

static void start_timer(struct sio_soft_apic *a)
{
    a->timer_begin = sio_now();
    a->timer_due = a->initial ? a->timer_begin + ((uint64_t)a->initial << divide_shift(a)) : 0;
}

static uint32_t current_count(const struct sio_soft_apic *a)
{
    uint64_t now = sio_now();
    return a->timer_due > now ? (uint32_t)((a->timer_due - now) >> divide_shift(a)) : 0;
}

static void run_timer(struct sio_soft *c)
{
    struct sio_soft_apic *a = &c->apic;
    uint64_t now;
    if (!a->timer_due || (now = sio_now()) < a->timer_due)
        return;
    uint32_t entry = a->lvt[LVT_TIMER];
    if (!(entry & MASKED))
        a->irr[(entry & 0xff) / 32] |= 1u << (entry & 31);
    if (entry & PERIODIC) {
        uint64_t period = (uint64_t)a->initial << divide_shift(a);
        a->timer_due += (now - a->timer_due) / period * period + period;
    } else
        a->timer_due = 0;
}

/* ---- the owner's side ---------------------------------------------------------------------------------------------- */

void sio_apic_update(struct sio_soft *c)
{
    for (int i = 0; i < 8; i++)
        if (sio_load_relaxed(&c->irr_in[i])) {
            uint32_t came = __atomic_exchange_n(&c->irr_in[i], 0, __ATOMIC_SEQ_CST);
            c->apic.tmr[i] = (c->apic.tmr[i] & ~came) | (sio_load_relaxed(&c->tmr_in[i]) & came);
            c->apic.irr[i] |= came;
        }
    run_timer(c);
}

int sio_apic_pending(const struct sio_soft *c)
{
    int vector = highest(c->apic.irr);
    if (!(c->apic.svr & ENABLED) || vector < 0 || ((uint32_t)vector & 0xf0) <= (priority(&c->apic) & 0xf0))
        return -1;
    return vector;
}

int sio_apic_take(struct sio_soft *c)
{
    int vector = sio_apic_pending(c);
    if (vector >= 0) {
        c->apic.irr[vector / 32] &= ~(1u << (vector & 31));
        c->apic.isr[vector / 32] |= 1u << (vector & 31);
    }
    return vector;
}

int sio_apic_passes_extint(const struct sio_soft *c)
{
    uint32_t lint0 = c->apic.lvt[LVT_LINT0];
    return !(lint0 & MASKED) && (lint0 >> 8 & 7) == EXTINT;
}

static void end_of_interrupt(struct sio_soft *c)
{
    int vector = highest(c->apic.isr);
    if (vector < 0)
        return;
    uint32_t bit = 1u << (vector & 31);
    c->apic.isr[vector / 32] &= ~bit;
    if ((c->apic.tmr[vector / 32] & bit) && c->eoi_count < sizeof c->eoi)
        c->eoi[c->eoi_count++] = (uint8_t)vector;
}

uint32_t sio_apic_read(struct sio_soft *c, uint32_t offset)
{
    struct sio_soft_apic *a = &c->apic;
    uint32_t word = offset >> 4 & 7;
    sio_apic_update(c);
    if (offset >= ISR && offset < ISR + 0x80)
        return a->isr[word];
    if (offset >= TMR && offset < TMR + 0x80)
        return a->tmr[word];
    if (offset >= IRR && offset < IRR + 0x80)
        return a->irr[word];
    if (offset >= LVT && offset < LVT_END)
        return a->lvt[(offset - LVT) / 16];
    switch (offset) {
    case ID: return a->id;
    case VERSION: return 0x00050014; /* six LVT entries, an integrated APIC */
    case TPR: return a->tpr;
    case PPR: return priority(a);
    case LDR: return a->ldr;
    case DFR: return a->dfr;
    case SVR: return a->svr;
    case ESR: return a->esr_seen;
    case ICR_LOW: return a->icr[0];
    case ICR_HIGH: return a->icr[1];
    case INITIAL: return a->initial;
    case CURRENT: return current_count(a);
    case DIVIDE: return a->divide;
    }
    return 0;
}

static void write_lvt(struct sio_soft_apic *a, uint32_t number, uint32_t value)
{
    static const uint32_t writable[6] = {0x300ff | PERIODIC, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};
    a->lvt[number] = (value & writable[number]) | (a->svr & ENABLED ? 0 : MASKED);
}

static void write_svr(struct sio_soft_apic *a, uint32_t value)
{
    a->svr = value & 0x3ff;
    for (int i = 0; i < 6 && !(value & ENABLED); i++)
        a->lvt[i] |= MASKED;
}

void sio_apic_write(struct sio_soft_machine *m, struct sio_raise *raise, struct sio_soft *c, uint32_t offset, uint32_t value)
{
    struct sio_soft_apic *a = &c->apic;
    if (offset >= LVT && offset < LVT_END) {
        write_lvt(a, (offset - LVT) / 16, value);
        return;
    }
    switch (offset) {
    case TPR: a->tpr = value & 0xff; break;
    case EOI: end_of_interrupt(c); break;
    case LDR: a->ldr = value & 0xff000000; break;
    case DFR: a->dfr = value | 0x0fffffff; break;
    case SVR: write_svr(a, value); break;
    case ESR: a->esr_seen = a->esr, a->esr = 0; break;
    case ICR_HIGH: a->icr[1] = value & 0xff000000; break;
    case ICR_LOW: a->icr[0] = value & ~(1u << 12), send(m, raise, c, a->icr[0]); break;
    case INITIAL: a->initial = value, start_timer(a); break;
    case DIVIDE: a->divide = value & 0xb; break;
    }
}
