/* Loads libunicorn. */
#include "unicorn_api.h"

#include <dlfcn.h>
#include <errno.h>

int sio_unicorn_load(struct unicorn *u, const char *path)
{
    static const char *const names[] = {
        "uc_version",      "uc_open",          "uc_emu_start",    "uc_emu_stop",      "uc_reg_read",       "uc_reg_write",
        "uc_mem_read",     "uc_mem_write",     "uc_mem_map_ptr",  "uc_mem_protect",   "uc_mmio_map",       "uc_vmem_translate",
        "uc_hook_add",     "uc_hook_del",      "uc_ctl",          "uc_context_alloc", "uc_context_size",  "uc_context_save",
        "uc_context_restore",
    };
    void **slots = (void **)u;
    _Static_assert(sizeof names / sizeof *names == sizeof *u / sizeof(void *), "one name for each function, in their order");

    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return -ENOENT;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!(slots[i] = dlsym(library, names[i])))
            return -EPROTO;
    unsigned major = 0, minor = 0;
    u->version(&major, &minor);
    return major == 2 && minor >= 1 ? 0 : -EPROTO;
}
