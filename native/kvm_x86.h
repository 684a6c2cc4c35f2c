/* The x86-64 part of kvm.h: names for the unnamed structs of <asm/kvm.h>. */
#ifndef SHARDIO_KVM_X86_H
#define SHARDIO_KVM_X86_H

#include "kvm.h"

#ifdef __x86_64__
typedef __typeof__(((struct kvm_vcpu_events *)0)->exception) shardio_kvm_event_exception;
typedef __typeof__(((struct kvm_vcpu_events *)0)->interrupt) shardio_kvm_event_interrupt;
typedef __typeof__(((struct kvm_vcpu_events *)0)->nmi) shardio_kvm_event_nmi;
typedef __typeof__(((struct kvm_run *)0)->debug.arch) shardio_kvm_exit_debug;
typedef __typeof__(((struct kvm_irqchip *)0)->chip) shardio_kvm_irqchip_state;
#endif

#endif
