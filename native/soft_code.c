/* Code that somebody else writes: another vCPU, in another process, or a device by DMA.
 *
 * Facts. Unicorn notices what its own guest code writes over translated code, and nothing that another process writes.
 *
 * Consequence. A worker keeps a copy of each page that it has translated code of, and compares when another vCPU had the turn, at
 * most once in CHECK_NS: so long may it execute what is not there any more. INIT and SIPI forget all.
 */
#include "soft_worker.h"

#include <stdlib.h>
#include <string.h>

#define PAGES 1024u
#define PAGE 4096u
#define CHECK_NS 500000u

struct sio_soft_code {
    uint32_t count;
    uint32_t page[PAGES];
    uint64_t checked;
    uint8_t *copy[PAGES];
};

void soft_code_note(uint32_t linear)
{
    struct sio_soft_code *code = sio_soft.code;
    uint32_t page = linear / PAGE;
    if (sio_soft.machine->vcpus == 1 || (uint64_t)page * PAGE >= sio_soft.machine->low_memory)
        return;
    if (!code && !(code = sio_soft.code = calloc(1, sizeof *code)))
        abort();
    for (uint32_t i = code->count; i-- > 0;)
        if (code->page[i] == page)
            return;
    if (code->count == PAGES)
        soft_code_forget();
    uint8_t **copy = &code->copy[code->count];
    if (!*copy && !(*copy = malloc(PAGE)))
        abort();
    memcpy(*copy, sio_soft.memory + (uint64_t)page * PAGE, PAGE);
    code->page[code->count++] = page;
}

void soft_code_forget(void)
{
    if (sio_soft.code)
        sio_soft.code->count = 0;
    sio_soft.u.ctl(sio_soft.uc, UC_CTL_FLUSH_CODE);
    sio_soft.me->instructions_flushed++;
}

void soft_code_check(void)
{
    struct sio_soft_code *code = sio_soft.code;
    uint64_t now = sio_now();
    if (!code || now - code->checked < CHECK_NS)
        return;
    code->checked = now;
    for (uint32_t i = 0; i < code->count; i++)
        if (memcmp(code->copy[i], sio_soft.memory + (uint64_t)code->page[i] * PAGE, PAGE) != 0) {
            soft_code_forget();
            return;
        }
}
