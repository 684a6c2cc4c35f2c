/* What the compiler is told about branches and functions. */
#ifndef SHARDIO_COMPILER_H
#define SHARDIO_COMPILER_H

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline, cold))

#endif
