/* A debugger's breakpoints, watchpoints and single steps on the software CPU.
 *
 * Facts. A hook on every instruction makes the guest several times slower. Unicorn calls it before the instruction, with registers
 * that are exact, and stops there when it is told to. A hook on memory is called in the middle of an instruction.
 *
 * Consequences. The hooks are there only while a debugger wants something. What a watchpoint has met is told before the next
 * instruction. The instruction at which the guest stood executes without a look when it goes on, or it would go no further.
 */
#include "soft_worker.h"

static uc_hook code_hook, read_hook, write_hook;

static void tell(enum sio_soft_stop why, uint32_t linear)
{
    sio_soft.me->debug.stop = why;
    /* As if a block ended here: the shadow of STI and MOV SS is looked for behind a block. */
    sio_soft.block_end = sio_soft.stopped_at = linear;
    soft_stop();
}

static void on_instruction(uc_engine *uc, uint64_t address, uint32_t size, void *user)
{
    const struct sio_soft_debug *debug = &sio_soft.me->debug;
    uint32_t linear = (uint32_t)address, first = sio_soft.step_first && linear == sio_soft.step_from;
    if (debug->stop)
        return; /* it is being left */
    sio_soft.step_first = 0;
    if (sio_soft.watched) {
        sio_soft.me->debug.watch_hit = sio_soft.watched - 1;
        sio_soft.watched = 0;
        tell(SIO_SOFT_WATCH, linear);
        return;
    }
    if (first)
        return;
    for (uint32_t i = 0; i < debug->breakpoints && i < SIO_SOFT_BREAKPOINTS; i++)
        if (debug->breakpoint[i] == linear) {
            tell(SIO_SOFT_BREAKPOINT, linear);
            return;
        }
    if (debug->step)
        tell(SIO_SOFT_STEP, linear);
}

static void look_at(uint64_t address, int size, uint32_t kind)
{
    const struct sio_soft_debug *debug = &sio_soft.me->debug;
    for (uint32_t i = 0; i < debug->watches && i < SIO_SOFT_WATCHES; i++) {
        const struct sio_soft_watchpoint *w = &debug->watch[i];
        if ((w->kind & kind) && address < (uint64_t)w->address + w->size && w->address < address + (uint64_t)size)
            sio_soft.watched = i + 1;
    }
}

static void on_memory_read(uc_engine *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    look_at(address, size, SIO_SOFT_WATCH_READS);
}

static void on_memory_write(uc_engine *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    look_at(address, size, SIO_SOFT_WATCH_WRITES);
}

static int want(uc_hook *hook, int wanted, int type, void *callback)
{
    if (wanted && !*hook)
        return sio_soft.u.hook_add(sio_soft.uc, hook, type, callback, (void *)0, (uint64_t)1, (uint64_t)0);
    if (!wanted && *hook) {
        int status = sio_soft.u.hook_del(sio_soft.uc, *hook);
        *hook = 0;
        return status;
    }
    return 0;
}

int soft_debug_begin(uint32_t linear)
{
    struct sio_soft_debug *debug = &sio_soft.me->debug;
    uint32_t wanted = debug->step || debug->breakpoints || debug->watches;
    if (__builtin_expect(!wanted && !sio_soft.debugging && !debug->wrote && !debug->resumed, 1))
        return 0;
    if (debug->resumed) {
        debug->resumed = sio_soft.watched = 0;
        sio_soft.step_first = 1;
        sio_soft.step_from = linear;
    }
    uint32_t hooks = !wanted ? 0 : debug->watches ? 2 : 1;
    if (hooks != sio_soft.debugging) {
        if (want(&code_hook, wanted != 0, UC_HOOK_CODE, on_instruction) ||
            want(&read_hook, debug->watches != 0, UC_HOOK_MEM_READ, on_memory_read) ||
            want(&write_hook, debug->watches != 0, UC_HOOK_MEM_WRITE, on_memory_write))
            return -1;
        sio_soft.debugging = hooks;
        debug->wrote = 1;
    }
    if (debug->wrote) {
        debug->wrote = 0;
        soft_code_forget();
    }
    return 0;
}
