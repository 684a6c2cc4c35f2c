/* The only file that names memory orders.
 *
 * Facts. x86 never reorders two loads, two stores, or a load with a later store; it does let a load pass an
 * earlier store to another address. Arm reorders all of them. So a release store and an acquire load suffice to
 * hand a line over, on both; what they never give is "my store is visible before I look at your flag", which every
 * sleep/wake hand-shake needs. That takes a full fence on both sides, or a full fence on the sleeping side and a
 * membarrier there that executes the other side's fence for it.
 *
 * Consequences. Each release below is named with the acquire that it pairs with, by a sync point:
 *   SP-REQUEST  client publishes mailbox.state   -> owner scans it              (mailbox.h)
 *   SP-REPLY    owner publishes mailbox.state    -> client polls it             (mailbox.h)
 *   SP-POST     client publishes slot.lap        -> owner polls it              (posted.h)
 *   SP-CREDIT   owner publishes credit.credit    -> client out of credit        (posted.h)
 *   SP-MAP      VMM publishes map generation     -> client looks an address up  (route.h)
 *   SP-QUIESCE  client marks an access, fences, looks at the map -> VMM changes the map, fences, waits for the mark's end
 *               (client.c, route.h)
 *   SP-WAKEUP     sleeper announces, fences, re-checks -> waker publishes, fences, looks for sleepers (wait.h)
 *   SP-COMMAND  VMM stores a command             -> worker reads it             (vcpu_loop.h)
 *   SP-PORT     a user releases a port          -> the next one takes it       (port.c)
 *   SP-WIRES    owner moves a line's level       -> worker told that one moved  (vcpu_wires.h)
 *   SP-TRACE    a trace slot is stamped, or its stamp withdrawn -> the VMM copies it (trace.c)
 *   SP-COALESCED kernel moves `last` / owner `first` -> owner / kernel and client read it (coalesced.c, posting.h)
 */
#ifndef SHARDIO_ORDER_H
#define SHARDIO_ORDER_H

#include <stdint.h>

#define sio_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define sio_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define sio_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define sio_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* A release store and a full fence: one `xchg` on x86; on Arm an exchange would let later loads pass its store. */
#if defined(__x86_64__)
#define sio_publish(p, v) ((void)__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST))
#else
#define sio_publish(p, v) (__atomic_store_n((p), (v), __ATOMIC_RELEASE), sio_fence_full())
#endif

/* Sets or clears bits of a word that several threads change. Full fences. */
#define sio_set_bits(p, bits) ((void)__atomic_fetch_or((p), (bits), __ATOMIC_SEQ_CST))
#define sio_clear_bits(p, bits) ((void)__atomic_fetch_and((p), ~(bits), __ATOMIC_SEQ_CST))

/* Takes the next number of a counter that several threads may take from. Orders nothing. */
#define sio_take_number(p) __atomic_fetch_add((p), 1, __ATOMIC_RELAXED)

/* Compare and swap, full fence; non-zero when it swapped. */
#define sio_swap_if(p, from, to)                                                                           \
    __extension__({                                                                                        \
        __typeof__(*(p)) expected_ = (from);                                                               \
        __atomic_compare_exchange_n((p), &expected_, (to), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);         \
    })

#if defined(__SANITIZE_THREAD__)
/* ThreadSanitizer does not model stand-alone fences: a read-modify-write of a private word stands in. */
static uint32_t sio_tsan_fence_word;
static inline void sio_fence_full(void) { __atomic_fetch_add(&sio_tsan_fence_word, 0, __ATOMIC_SEQ_CST); }
static inline void sio_fence_release(void) { __atomic_fetch_add(&sio_tsan_fence_word, 0, __ATOMIC_SEQ_CST); }
static inline void sio_fence_acquire(void) { __atomic_fetch_add(&sio_tsan_fence_word, 0, __ATOMIC_SEQ_CST); }
#else
static inline void sio_fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void sio_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
static inline void sio_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
#endif

/* Orders nothing in the processor: keeps the compiler from moving a load above a store where the peer's
 * membarrier supplies the processor's fence. */
static inline void sio_fence_compiler(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

/* Tells the core that this is a spin: one `pause` a poll. */
static inline void sio_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A constant-rate counter of the processor, in ticks (fabric.h: ticks to nanoseconds). */
static inline uint64_t sio_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
#error "shardio needs x86-64 or aarch64"
#endif
}

#endif
