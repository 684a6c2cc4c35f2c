/* Events that change a software vCPU's flow: entry states, exceptions, interrupts.
 *
 * Facts. Unicorn reports an exception and stops; the gate is ours to go through. It does not tell the error code: handlers get 0.
 * Gates lead to privilege level 0 from level 0: there is no change of stack.
 *
 * Source: Intel SDM volume 3, chapter 6 (protected mode), section 20.1.4 (real mode), table 10-1 (state after INIT).
 */
#include "soft_worker.h"

#include <errno.h>

#define FLAG_TF (1u << 8)
#define FLAG_IF (1u << 9)
#define FLAG_NT (1u << 14)
#define FLAG_RF (1u << 16)
#define FLAG_VM (1u << 17)
#define CR0_PE 1u
#define CR0_ET (1u << 4)
#define CR0_PG (1u << 31)

static const int gpr[8] = {UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
                           UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI};
static const int segment[6] = {UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS, UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS};

static void set_table(int reg, uint32_t base, uint32_t limit)
{
    struct uc_x86_table table = {.base = base, .limit = limit};
    sio_soft.u.reg_write(sio_soft.uc, reg, &table);
}

void soft_apply_entry(const struct sio_soft_entry *e)
{
    soft_set(UC_X86_REG_CR0, e->cr0);
    soft_set(UC_X86_REG_CR4, 0);
    soft_set(UC_X86_REG_CR3, 0);
    set_table(UC_X86_REG_GDTR, e->gdt_base, e->gdt_limit);
    set_table(UC_X86_REG_IDTR, e->idt_base, e->idt_limit);
    soft_set(UC_X86_REG_EFLAGS, e->eflags);
    for (int i = 0; i < 6; i++)
        soft_set(segment[i], e->selector[i]);
    for (int i = 0; i < 8; i++)
        soft_set(gpr[i], e->gpr[i]);
    sio_soft.eip = e->eip;
    sio_soft.block_end = ~0u;
}

void soft_start_up(uint32_t vector)
{
    struct sio_soft_entry e = {.cr0 = CR0_ET, .eflags = 2, .gdt_limit = 0xffff, .idt_limit = 0xffff};
    e.gpr[2] = 0x600; /* EDX: family 6 */
    e.selector[1] = vector == 0xff ? 0xf000 : (uint16_t)(vector << 8);
    e.eip = vector == 0xff ? 0xfff0 : 0;
    soft_apply_entry(&e);
}

void soft_show(void)
{
    struct sio_soft_registers *r = &sio_soft.me->shown;
    struct uc_x86_table gdt = {0}, idt = {0};
    if (sio_soft.me->changed)
        return; /* what the VMM has put there is not taken yet */
    sio_soft.u.reg_read(sio_soft.uc, UC_X86_REG_GDTR, &gdt);
    sio_soft.u.reg_read(sio_soft.uc, UC_X86_REG_IDTR, &idt);
    *r = (struct sio_soft_registers){
        .eip = soft_get(UC_X86_REG_EIP), .eflags = soft_get(UC_X86_REG_EFLAGS), .cr0 = soft_get(UC_X86_REG_CR0),
        .cr2 = soft_get(UC_X86_REG_CR2), .cr3 = soft_get(UC_X86_REG_CR3), .cr4 = soft_get(UC_X86_REG_CR4),
        .gdt_base = (uint32_t)gdt.base, .gdt_limit = gdt.limit, .idt_base = (uint32_t)idt.base, .idt_limit = idt.limit,
    };
    for (int i = 0; i < 8; i++)
        r->gpr[i] = soft_get(gpr[i]);
    for (int i = 0; i < 6; i++)
        r->selector[i] = (uint16_t)soft_get(segment[i]);
}

void soft_take_registers(void)
{
    const struct sio_soft_registers *r = &sio_soft.me->shown;
    soft_set(UC_X86_REG_CR0, r->cr0);
    soft_set(UC_X86_REG_CR2, r->cr2);
    soft_set(UC_X86_REG_CR3, r->cr3);
    soft_set(UC_X86_REG_CR4, r->cr4);
    set_table(UC_X86_REG_GDTR, r->gdt_base, r->gdt_limit);
    set_table(UC_X86_REG_IDTR, r->idt_base, r->idt_limit);
    soft_set(UC_X86_REG_EFLAGS, r->eflags);
    for (int i = 0; i < 6; i++)
        if (soft_get(segment[i]) != r->selector[i]) /* what is loaded may differ from what the table says by now */
            soft_set(segment[i], r->selector[i]);
    for (int i = 0; i < 8; i++)
        soft_set(gpr[i], r->gpr[i]);
    sio_soft.eip = r->eip;
    sio_soft.block_end = ~0u;
}

int soft_shadowed(uint32_t at)
{
    uint8_t b[4] = {0};
    if (at != sio_soft.block_before || at < 4 || sio_soft.u.mem_read(sio_soft.uc, at - 4, b, 4) != UC_OK)
        return 0;
    /* STI; POP SS; MOV SS, r16; MOV SS, [disp16]. Where this is the end of another instruction, an interrupt comes a block late. */
    return b[3] == 0xfb || b[3] == 0x17 || (b[2] == 0x8e && (b[3] & 0xf8) == 0xd0) || (b[0] == 0x8e && b[1] == 0x16);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

static int reach(uint32_t linear, int write, uint64_t *physical)
{
    *physical = linear;
    if (!(soft_get(UC_X86_REG_CR0) & CR0_PG))
        return 0;
    return sio_soft.u.vmem_translate(sio_soft.uc, linear, write ? 2 : 1, physical) == UC_OK ? 0 : -EFAULT;
}

static int load(uint32_t linear, void *to, uint32_t size)
{
    uint64_t at;
    return reach(linear, 0, &at) || sio_soft.u.mem_read(sio_soft.uc, at, to, size) != UC_OK ? -EFAULT : 0;
}

static int store(uint32_t linear, const void *from, uint32_t size)
{
    uint64_t at;
    return reach(linear, 1, &at) || sio_soft.u.mem_write(sio_soft.uc, at, from, size) != UC_OK ? -EFAULT : 0;
}

/* Base address and default size (1: 32 bits) of a segment, out of its descriptor table. */
static int describe(uint32_t selector, uint32_t *base, int *wide)
{
    struct uc_x86_table table = {0};
    uint8_t d[8];
    sio_soft.u.reg_read(sio_soft.uc, selector & 4 ? UC_X86_REG_LDTR : UC_X86_REG_GDTR, &table);
    if ((selector & ~7u) == 0 || (selector & ~7u) + 7 > table.limit || load((uint32_t)table.base + (selector & ~7u), d, 8))
        return -EFAULT;
    *base = (uint32_t)d[2] | (uint32_t)d[3] << 8 | (uint32_t)d[4] << 16 | (uint32_t)d[7] << 24;
    *wide = d[6] >> 6 & 1;
    return 0;
}

/* Values of `size` bytes each, the first pushed first. */
static int push(uint32_t base, int wide, uint32_t size, const uint32_t *values, uint32_t count)
{
    uint32_t esp = soft_get(UC_X86_REG_ESP), mask = wide ? ~0u : 0xffffu;
    for (uint32_t i = 0; i < count; i++) {
        esp = (esp & ~mask) | ((esp - size) & mask);
        if (store(base + (esp & mask), &values[i], size))
            return -EFAULT;
    }
    soft_set(UC_X86_REG_ESP, esp);
    return 0;
}

/* ---- gates --------------------------------------------------------------------------------------------------------- */

static void go(uint32_t selector, uint32_t offset, uint32_t flags)
{
    soft_set(UC_X86_REG_EFLAGS, flags);
    soft_set(UC_X86_REG_CS, selector);
    sio_soft.eip = offset;
    sio_soft.block_end = ~0u;
}

static int real_mode(uint32_t vector, const struct uc_x86_table *idt)
{
    uint16_t gate[2];
    uint32_t flags = soft_get(UC_X86_REG_EFLAGS), cs = soft_get(UC_X86_REG_CS);
    uint32_t frame[3] = {flags, cs, sio_soft.eip};
    if (vector * 4 + 3 > idt->limit || load((uint32_t)idt->base + vector * 4, gate, 4))
        return -EFAULT;
    if (push(soft_get(UC_X86_REG_SS) << 4, 0, 2, frame, 3))
        return -EFAULT;
    go(gate[1], gate[0], flags & ~(FLAG_IF | FLAG_TF | FLAG_RF));
    return 0;
}

static int has_error_code(uint32_t vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

static int protected_mode(uint32_t vector, int exception, const struct uc_x86_table *idt)
{
    uint8_t gate[8];
    uint32_t base, ignored, flags = soft_get(UC_X86_REG_EFLAGS), cs = soft_get(UC_X86_REG_CS);
    int wide, code_wide;
    if (vector * 8 + 7 > idt->limit || load((uint32_t)idt->base + vector * 8, gate, 8))
        return -EFAULT;
    uint32_t type = gate[5] & 0x1f, selector = (uint32_t)gate[2] | (uint32_t)gate[3] << 8;
    uint32_t offset = (uint32_t)gate[0] | (uint32_t)gate[1] << 8;
    if (!(gate[5] & 0x80) || (type & 0x16) != 6 || (cs & 3) || (selector & 3) || (flags & FLAG_VM))
        return -EFAULT;
    if (describe(selector, &ignored, &code_wide) || describe(soft_get(UC_X86_REG_SS), &base, &wide))
        return -EFAULT;
    if (type & 8)
        offset |= (uint32_t)gate[6] << 16 | (uint32_t)gate[7] << 24;
    uint32_t frame[4] = {flags, cs, sio_soft.eip, 0};
    if (push(base, wide, type & 8 ? 4 : 2, frame, exception && has_error_code(vector) ? 4 : 3))
        return -EFAULT;
    flags &= ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (type & 1 ? 0 : FLAG_IF));
    go(selector, offset, flags);
    return 0;
}

static int through_gate(uint32_t vector, int exception)
{
    struct uc_x86_table idt = {0};
    sio_soft.u.reg_read(sio_soft.uc, UC_X86_REG_IDTR, &idt);
    return soft_get(UC_X86_REG_CR0) & CR0_PE ? protected_mode(vector, exception, &idt) : real_mode(vector, &idt);
}

int soft_deliver(uint32_t vector, int exception)
{
    /* What cannot be delivered is a general protection, then a double fault; then the processor shuts down. */
    return through_gate(vector, exception) && through_gate(13, 1) && through_gate(8, 1) ? -EFAULT : 0;
}
