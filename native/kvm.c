/* The ioctl gate of kvm.h. */
#include "kvm.h"

#include <errno.h>
#include <sys/ioctl.h>

int shardio_kvm_ioctl(int fd, unsigned long request, uintptr_t argument)
{
    int result;

    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int shardio_kvm_run(int fd)
{
    return ioctl(fd, KVM_RUN, 0UL) < 0 ? -errno : 0;
}
