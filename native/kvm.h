/*
 * KVM as the control plane sees it: one ioctl gate, and names for the anonymous parts of <linux/kvm.h>.
 *
 * Facts. KVM binds a VM to the address space that created it: every call here must be made by the VMM process
 * (any of its threads), or the kernel answers EIO. The vCPU workers, which live in the same address space, run
 * KVM_RUN themselves (worker.c); nothing here is on the data path.
 *
 * Consequence. Layouts and ioctl numbers come from the compiler: kvm.cdef lists fields without their offsets, and the
 * typedefs below give its nested unnamed structs a name that can be written down there.
 */
#ifndef SHARDIO_KVM_H
#define SHARDIO_KVM_H

#include <linux/kvm.h>
#include <stdint.h>

/*
 * One ioctl on a KVM fd. Returns what the ioctl returned (>= 0) or -errno. EINTR is retried here and nowhere else, so
 * this is not for KVM_RUN, where EINTR is an answer.
 */
int shardio_kvm_ioctl(int fd, unsigned long request, uintptr_t argument);

/* KVM_RUN once: 0, or -errno (-EINTR: kicked; -EAGAIN: an AP that still waits for its SIPI). */
int shardio_kvm_run(int fd);

typedef __typeof__(((struct kvm_run *)0)->hw) shardio_kvm_exit_hw;
typedef __typeof__(((struct kvm_run *)0)->fail_entry) shardio_kvm_exit_fail_entry;
typedef __typeof__(((struct kvm_run *)0)->io) shardio_kvm_exit_io;
typedef __typeof__(((struct kvm_run *)0)->mmio) shardio_kvm_exit_mmio;
typedef __typeof__(((struct kvm_run *)0)->internal) shardio_kvm_exit_internal;
typedef __typeof__(((struct kvm_run *)0)->emulation_failure) shardio_kvm_exit_emulation_failure;
typedef __typeof__(((struct kvm_run *)0)->msr) shardio_kvm_exit_msr;
typedef __typeof__(((struct kvm_run *)0)->system_event) shardio_kvm_exit_system_event;
typedef __typeof__(((struct kvm_run *)0)->eoi) shardio_kvm_exit_eoi;
typedef __typeof__(((struct kvm_irq_routing_entry *)0)->u) shardio_kvm_irq_route;

#endif
