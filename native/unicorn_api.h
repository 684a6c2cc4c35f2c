/* The functions of libunicorn 2.1 that the software CPU calls, found at run time with dlopen and dlsym.
 *
 * Facts. Unicorn is under GPL version 2, so it is optional: no header of it is needed to build this, and nothing of it is
 * shipped. Its C interface is stable within 2.x: the numbers below are those of its public constants (unicorn_const.py,
 * x86_const.py of the wheel).
 */
#ifndef SHARDIO_UNICORN_API_H
#define SHARDIO_UNICORN_API_H

#include <stddef.h>
#include <stdint.h>

enum {
    UC_ARCH_X86 = 4,
    UC_MODE_32 = 4,
    UC_OK = 0,
    UC_PROT_NONE = 0,
    UC_PROT_READ_EXEC = 5,
    UC_PROT_ALL = 7,

    UC_HOOK_INTR = 1 << 0,
    UC_HOOK_INSN = 1 << 1,
    UC_HOOK_CODE = 1 << 2,
    UC_HOOK_BLOCK = 1 << 3,
    UC_HOOK_MEM_READ_PROT = 1 << 7,
    UC_HOOK_MEM_WRITE_PROT = 1 << 8,
    UC_HOOK_MEM_READ = 1 << 10,
    UC_HOOK_MEM_WRITE = 1 << 11,
    UC_HOOK_INSN_INVALID = 1 << 14,
    UC_HOOK_EDGE_GENERATED = 1 << 15,

    UC_X86_INS_CPUID = 113,
    UC_X86_INS_IN = 218,
    UC_X86_INS_OUT = 500,

    UC_X86_REG_CS = 11,
    UC_X86_REG_DS = 17,
    UC_X86_REG_EAX = 19,
    UC_X86_REG_EBP = 20,
    UC_X86_REG_EBX = 21,
    UC_X86_REG_ECX = 22,
    UC_X86_REG_EDI = 23,
    UC_X86_REG_EDX = 24,
    UC_X86_REG_EFLAGS = 25,
    UC_X86_REG_EIP = 26,
    UC_X86_REG_ES = 28,
    UC_X86_REG_ESI = 29,
    UC_X86_REG_ESP = 30,
    UC_X86_REG_FS = 32,
    UC_X86_REG_GS = 33,
    UC_X86_REG_SS = 49,
    UC_X86_REG_CR0 = 50,
    UC_X86_REG_CR2 = 52,
    UC_X86_REG_CR3 = 53,
    UC_X86_REG_CR4 = 54,
    UC_X86_REG_IDTR = 242,
    UC_X86_REG_GDTR = 243,
    UC_X86_REG_LDTR = 244,
    UC_X86_REG_TR = 245,
};

/* Of uc_ctl: number, count of arguments in bits 26-29, write in bit 30. */
#define UC_CTL_SET_EXITS_ENABLED (4u | 1u << 26 | 1u << 30)
#define UC_CTL_REMOVE_CACHE (9u | 2u << 26 | 1u << 30)
#define UC_CTL_FLUSH_CODE (10u | 0u << 26 | 1u << 30)

typedef struct uc_engine uc_engine;
typedef struct uc_context uc_context;
typedef size_t uc_hook;
struct uc_x86_table {
    uint16_t selector;
    uint64_t base;
    uint32_t limit;
    uint32_t flags;
};
struct uc_translated {
    uint64_t pc;
    uint16_t instructions;
    uint16_t size;
};

struct unicorn {
    unsigned (*version)(unsigned *, unsigned *);
    int (*open)(int, int, uc_engine **);
    int (*emu_start)(uc_engine *, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(uc_engine *);
    int (*reg_read)(uc_engine *, int, void *);
    int (*reg_write)(uc_engine *, int, const void *);
    int (*mem_read)(uc_engine *, uint64_t, void *, uint64_t);
    int (*mem_write)(uc_engine *, uint64_t, const void *, uint64_t);
    int (*mem_map_ptr)(uc_engine *, uint64_t, uint64_t, uint32_t, void *);
    int (*mem_protect)(uc_engine *, uint64_t, uint64_t, uint32_t);
    int (*mmio_map)(uc_engine *, uint64_t, uint64_t, uint64_t (*)(uc_engine *, uint64_t, unsigned, void *), void *,
                    void (*)(uc_engine *, uint64_t, unsigned, uint64_t, void *), void *);
    int (*vmem_translate)(uc_engine *, uint64_t, int protection, uint64_t *);
    int (*hook_add)(uc_engine *, uc_hook *, int type, void *callback, void *user, uint64_t begin, uint64_t end, ...);
    int (*hook_del)(uc_engine *, uc_hook);
    int (*ctl)(uc_engine *, unsigned, ...);
    int (*context_alloc)(uc_engine *, uc_context **);
    size_t (*context_size)(uc_engine *);
    int (*context_save)(uc_engine *, uc_context *);
    int (*context_restore)(uc_engine *, uc_context *);
};

/* Loads the library at `path`. 0, -ENOENT: cannot be loaded, -EPROTO: it is another version than 2.1 or lacks a function. */
int sio_unicorn_load(struct unicorn *functions, const char *path);

#endif
