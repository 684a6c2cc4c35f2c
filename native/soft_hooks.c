/* Unicorn's hooks, and the engine that they are on.
 *
 * Facts. A hook on memory reads or writes makes every access to RAM slow; one on accesses that a region's protection forbids costs
 * nothing elsewhere. It is called once for an instruction's access, whole, with registers that are exact; then Unicorn cuts the
 * access up (8 bytes into two of 4, an unaligned one into aligned words or bytes) and calls the region's functions.
 *
 * Consequences. All that is not RAM is a memory-mapped region without any permission: the hook makes the access, in its own width,
 * and the region's functions hand the bytes out. What an access needs of two pages goes as two accesses, as KVM makes them.
 */
#include "soft_worker.h"

#include <stdbool.h>
#include <string.h>

#define PAGE 4096u

struct sio_soft_worker sio_soft;

void soft_stop(void)
{
    sio_soft.stopped = 1;
    sio_soft.u.emu_stop(sio_soft.uc);
}

static void on_block(uc_engine *uc, uint64_t address, uint32_t size, void *user)
{
    uint32_t linear = (uint32_t)address;
    sio_soft.fresh = 1;
    sio_soft.block_before = sio_soft.block_end;
    sio_soft.block_end = linear + size;
    if (__builtin_expect(sio_load_relaxed(&sio_soft.raise->sequence) != sio_soft.seen || sio_soft.armed || --sio_soft.fuel <= 0, 0) &&
        soft_look(linear)) {
        sio_soft.block_end = sio_soft.block_before; /* it has not begun after all */
        sio_soft.stopped_at = linear;
        soft_stop();
    }
}

static void on_translated(uc_engine *uc, struct uc_translated *now, struct uc_translated *before, void *user)
{
    soft_code_note((uint32_t)now->pc);
    soft_code_note((uint32_t)now->pc + now->size - 1);
}

static void on_exception(uc_engine *uc, uint32_t vector, void *user)
{
    sio_soft.exception = vector + 1;
    soft_stop();
}

static bool on_invalid_instruction(uc_engine *uc, void *user)
{
    sio_soft.exception = 6 + 1;
    soft_stop();
    return true;
}

/* ---- ports --------------------------------------------------------------------------------------------------------- */

static uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *user)
{
    return (uint32_t)soft_access(SIO_PIO, port, (uint32_t)size, 0, 0);
}

static void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *user)
{
    soft_access(SIO_PIO, port, (uint32_t)size, 1, value);
}

/* ---- memory-mapped registers --------------------------------------------------------------------------------------- */

static uint32_t first_part(uint64_t address, uint32_t size)
{
    uint32_t left = PAGE - (uint32_t)(address % PAGE);
    return size < left ? size : left;
}

static bool on_read(uc_engine *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    uint32_t head = first_part(address, (uint32_t)size);
    uint64_t data = soft_access(SIO_MMIO, address, head, 0, 0);
    if (head < (uint32_t)size)
        data |= soft_access(SIO_MMIO, address + head, (uint32_t)size - head, 0, 0) << (8 * head);
    sio_soft.word = data;
    sio_soft.word_at = address;
    sio_soft.word_size = (uint32_t)size;
    return true;
}

static uint64_t read_part(uc_engine *uc, uint64_t offset, unsigned size, void *region)
{
    uint64_t at = (uint64_t)(uintptr_t)region + offset - sio_soft.word_at, value = 0;
    for (unsigned i = 0; i < size; i++)
        if (at + i < sio_soft.word_size)
            value |= (sio_soft.word >> (8 * (at + i)) & 0xff) << (8 * i);
    return value;
}

static bool on_write(uc_engine *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    struct sio_soft_machine *m = sio_soft.machine;
    if (m->rom_size && address - m->rom_base < m->rom_size)
        return true; /* dropped */
    if (sio_soft.bytes_left && !sio_soft.fresh && size == 1 && address == sio_soft.next_byte) {
        sio_soft.bytes_left--; /* of an unaligned access, which is made already */
        sio_soft.next_byte++;
        return true;
    }
    uint32_t whole = (uint32_t)size, head = first_part(address, whole);
    soft_access(SIO_MMIO, address, head, 1, (uint64_t)value);
    if (head < whole)
        soft_access(SIO_MMIO, address + head, whole - head, 1, (uint64_t)value >> (8 * head));
    sio_soft.bytes_left = address & (whole - 1) ? whole : 0;
    sio_soft.next_byte = address;
    return true;
}

static void write_part(uc_engine *uc, uint64_t offset, unsigned size, uint64_t value, void *region) {}

/* ---- CPUID --------------------------------------------------------------------------------------------------------- */

/* FPU, PSE, TSC, MSR, PAE, CX8, APIC, PGE, CMOV, MMX, FXSR, SSE, SSE2, HTT */
#define FEATURES_EDX (1u << 0 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 13 | 1u << 15 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26)
#define HAS_APIC (1u << 9)
#define HAS_HTT (1u << 28)
#define HYPERVISOR (1u << 31)

/* Leaf 1 says what this machine has; vendor and other leaves are Unicorn's. */
static int on_cpuid(uc_engine *uc, void *user)
{
    if (soft_get(UC_X86_REG_EAX) != 1)
        return 0;
    uint32_t count = sio_soft.machine->vcpus, logical = 1;
    while (logical < count)
        logical *= 2;
    soft_set(UC_X86_REG_EAX, 0x663);
    soft_set(UC_X86_REG_EBX, sio_soft.me->index << 24 | logical << 16);
    soft_set(UC_X86_REG_ECX, HYPERVISOR);
    soft_set(UC_X86_REG_EDX, FEATURES_EDX | (sio_soft.machine->apic ? HAS_APIC : 0) | (count > 1 ? HAS_HTT : 0));
    return 1;
}

/* ---- the engine ---------------------------------------------------------------------------------------------------- */

/* From `from` to `to`, all of it registers of devices. */
static int map_registers(uint64_t from, uint64_t to)
{
    struct unicorn *u = &sio_soft.u;
    if (from >= to)
        return 0;
    void *base = (void *)(uintptr_t)from;
    return u->mmio_map(sio_soft.uc, from, to - from, read_part, base, write_part, base) ||
           u->mem_protect(sio_soft.uc, from, to - from, UC_PROT_NONE);
}

/* The RAM below the hole of devices, and the pages in it where devices answer too. */
static int map_low(const struct sio_soft_start *s)
{
    struct unicorn *u = &sio_soft.u;
    struct sio_soft_machine *m = s->machine;
    uint64_t at = 0, holes = m->holes < SIO_SOFT_HOLES ? m->holes : SIO_SOFT_HOLES;
    for (uint64_t i = 0; i < holes; i++) {
        uint64_t base = m->hole[i].base, end = base + m->hole[i].size;
        if ((base > at && u->mem_map_ptr(sio_soft.uc, at, base - at, UC_PROT_ALL, s->memory + at)) || map_registers(base, end))
            return -1;
        at = end;
    }
    return at < m->low_memory && u->mem_map_ptr(sio_soft.uc, at, m->low_memory - at, UC_PROT_ALL, s->memory + at);
}

static int map(const struct sio_soft_start *s)
{
    struct unicorn *u = &sio_soft.u;
    struct sio_soft_machine *m = s->machine;
    uint64_t four_gib = 1ull << 32, high = m->memory_size - m->low_memory;
    uint64_t registers_end = m->rom_size ? m->rom_base : four_gib;
    return map_low(s) || map_registers(m->low_memory, registers_end) ||
           (m->rom_size && u->mem_map_ptr(sio_soft.uc, m->rom_base, m->rom_size, UC_PROT_READ_EXEC, s->rom)) ||
           (m->rom_size && map_registers(m->rom_base + m->rom_size, four_gib)) ||
           (high && u->mem_map_ptr(sio_soft.uc, four_gib, high, UC_PROT_ALL, s->memory + m->low_memory));
}

static int hook(int type, void *callback, int instruction)
{
    uc_hook handle;
    return sio_soft.u.hook_add(sio_soft.uc, &handle, type, callback, (void *)0, (uint64_t)1, (uint64_t)0, instruction);
}

static int hooks(void)
{
    return hook(UC_HOOK_BLOCK, on_block, 0) || hook(UC_HOOK_INTR, on_exception, 0) ||
           hook(UC_HOOK_INSN_INVALID, on_invalid_instruction, 0) || hook(UC_HOOK_EDGE_GENERATED, on_translated, 0) ||
           hook(UC_HOOK_INSN, on_in, UC_X86_INS_IN) || hook(UC_HOOK_INSN, on_out, UC_X86_INS_OUT) ||
           hook(UC_HOOK_INSN, on_cpuid, UC_X86_INS_CPUID) || hook(UC_HOOK_MEM_READ_PROT, on_read, 0) ||
           hook(UC_HOOK_MEM_WRITE_PROT, on_write, 0);
}

int soft_open(const struct sio_soft_start *s)
{
    struct unicorn *u = &sio_soft.u;
    uc_context *context;
    int status = sio_unicorn_load(u, s->unicorn);
    if (status)
        return status;
    if (u->open(UC_ARCH_X86, UC_MODE_32, &sio_soft.uc) || u->ctl(sio_soft.uc, UC_CTL_SET_EXITS_ENABLED, 1))
        return -ENOMEM;
    if (map(s) || hooks())
        return -EIO;
    /* Unicorn's own record of a CPU, in memory that a successor has too: a head that says what it is, and the registers. */
    size_t size = u->context_size(sio_soft.uc);
    if (size > SIO_SOFT_CONTEXT_BYTES)
        return -E2BIG;
    if (u->context_alloc(sio_soft.uc, &context))
        return -ENOMEM;
    if (s->machine->cpu[s->index].phase == SIO_SOFT_ENTRY)
        memcpy(s->machine->cpu[s->index].context, context, size);
    return 0;
}
