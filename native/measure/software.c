/* The floor of a software exit: a guest in Unicorn whose every IN is answered where it leaves, in its own process. */
#include "measure.h"

#include "unicorn_api.h"

#define ENTRY 0x1000u
#define PAGE 4096u

static struct unicorn unicorn;
static uc_engine *engine;
static struct sio_measure_block *counted;
static uint64_t last;

static uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *user)
{
    if ((++counted->done & (counted->every - 1)) == 0)
        last = sio_measure_gap(counted, last);
    if (counted->done == counted->n)
        unicorn.emu_stop(uc);
    return 0;
}

static int begin(const char *library, const void *code, uint32_t size)
{
    static uint8_t memory[2 * PAGE] __attribute__((aligned(PAGE)));
    uc_hook hook;
    int status = sio_unicorn_load(&unicorn, library);
    if (status)
        return status;
    if (unicorn.open(UC_ARCH_X86, UC_MODE_32, &engine))
        return -1;
    return unicorn.mem_map_ptr(engine, 0, sizeof(memory), UC_PROT_ALL, memory) || unicorn.mem_write(engine, ENTRY, code, size) ||
           unicorn.hook_add(engine, &hook, UC_HOOK_INSN, on_in, NULL, (uint64_t)1, (uint64_t)0, UC_X86_INS_IN);
}

uint64_t sio_measure_software(const char *library, const void *code, uint32_t size, struct sio_measure_block *b)
{
    uint64_t start;
    b->done = b->gap = 0;
    if (!engine && begin(library, code, size))
        return 0;
    counted = b;
    start = last = sio_ticks();
    unicorn.emu_start(engine, ENTRY, ~0ull, 0, 0);
    last = sio_measure_gap(b, last);
    return last - start;
}
