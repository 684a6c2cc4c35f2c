/* A shard's side of the raise page. */
#include "raise.h"

static void changed(struct sio_raise *page, uint32_t word)
{
    __atomic_fetch_or(&page->changed, 1ull << word, __ATOMIC_SEQ_CST);
    sio_raise_wake(page);
}

void sio_raise_edge(struct sio_raise *page, uint32_t handle)
{
    uint32_t word = handle / 64 % SIO_RAISE_WORDS;
    __atomic_fetch_or(&page->edge[word], 1ull << (handle & 63), __ATOMIC_SEQ_CST);
    changed(page, word);
}

void sio_raise_level(struct sio_raise *page, uint32_t handle, int high)
{
    uint32_t word = handle / 64 % SIO_RAISE_WORDS;
    uint64_t bit = 1ull << (handle & 63);
    if (high) { /* a rise is an edge too: the line may have fallen only since somebody looked */
        __atomic_fetch_or(&page->level[word], bit, __ATOMIC_SEQ_CST);
        __atomic_fetch_or(&page->edge[word], bit, __ATOMIC_SEQ_CST);
    } else
        __atomic_fetch_and(&page->level[word], ~bit, __ATOMIC_SEQ_CST);
    changed(page, word);
}

void sio_raise_clear(struct sio_raise *page, uint32_t handle)
{
    uint32_t word = handle / 64 % SIO_RAISE_WORDS;
    __atomic_fetch_and(&page->edge[word], ~(1ull << (handle & 63)), __ATOMIC_SEQ_CST);
    sio_raise_level(page, handle, 0);
}
