#include "walls.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int sio_no_new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

int sio_capabilities_keep(uint64_t keep, uint64_t *dropped)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, sets) != 0)
        return -errno;
    *dropped = 0;
    for (int word = 0; word < _LINUX_CAPABILITY_U32S_3; word++) {
        uint32_t kept = (uint32_t)(keep >> 32 * word);

        *dropped |= (uint64_t)(sets[word].permitted & ~kept) << 32 * word;
        sets[word].permitted &= kept;
        sets[word].effective = sets[word].permitted;
        /* The ambient set goes with it: the kernel keeps it within the permitted and the inheritable one. */
        sets[word].inheritable &= kept;
    }
    return syscall(SYS_capset, &header, sets) == 0 ? 0 : -errno;
}
