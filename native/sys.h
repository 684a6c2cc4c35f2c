/* Raw system calls. A vCPU worker shares the VMM's address space without a TLS block of its own, so nothing it runs may
 * touch errno, malloc or stdio: each call returns the kernel's value, -errno on failure. */
#ifndef SHARDIO_SYS_H
#define SHARDIO_SYS_H

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

static inline long sio_syscall6(long n, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#endif
}

#define sio_syscall3(n, a, b, c) sio_syscall6((n), (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sio_syscall4(n, a, b, c, d) sio_syscall6((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* Fills `n` bytes. A plain loop would be made a call of memset, which is libc's. */
static inline void sio_fill(uint8_t *to, uint8_t byte, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        to[i] = byte;
        __asm__("" : "+r"(to));
    }
}

static inline void sio_yield(void) { sio_syscall3(SYS_sched_yield, 0, 0, 0); }

/* Sleeps, or less where a signal comes. */
static inline void sio_nap(uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    sio_syscall3(SYS_nanosleep, &time, 0, 0);
}

/* Waits at most `timeout_ns` while *word == value. Between processes: not FUTEX_PRIVATE. */
static inline long sio_futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    return sio_syscall6(SYS_futex, (long)word, FUTEX_WAIT, (long)value, (long)&timeout, 0, 0);
}

static inline long sio_futex_wake(uint32_t *word)
{
    return sio_syscall6(SYS_futex, (long)word, FUTEX_WAKE, 0x7fffffff, 0, 0, 0);
}

/* One count onto an eventfd. EAGAIN (the counter is full) means that the reader has long been told. */
static inline void sio_eventfd_ring(int fd)
{
    uint64_t one = 1;
    long ret;
    do
        ret = sio_syscall3(SYS_write, fd, &one, sizeof one);
    while (ret == -EINTR);
}

#endif
