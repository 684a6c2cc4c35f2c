/* The local APIC of a software vCPU. Source: Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)". */
#ifndef SHARDIO_SOFT_APIC_H
#define SHARDIO_SOFT_APIC_H

#include "soft.h"

#define SIO_APIC_BASE 0xFEE00000u
#define SIO_STARTUP_INIT (1u << 31)
#define SIO_STARTUP_SIPI (1u << 30)
#define SIO_STARTUP_NMI (1u << 29)

/* As after INIT. The boot processor's LINT0 takes the PIC's interrupts, as KVM sets it up too. */
void sio_apic_reset(struct sio_soft *cpu);
/* Registers, by their offset: 32 bits each. A write may send to other vCPUs, and queues EOIs for the IOAPIC. */
uint32_t sio_apic_read(struct sio_soft *cpu, uint32_t offset);
void sio_apic_write(struct sio_soft_machine *machine, struct sio_raise *raise, struct sio_soft *cpu, uint32_t offset,
                    uint32_t value);
/* A message interrupt: a write of `data` to `address`. */
void sio_apic_message(struct sio_soft_machine *machine, struct sio_raise *raise, uint64_t address, uint32_t data);
/* Takes what others sent, and what the timer did. */
void sio_apic_update(struct sio_soft *cpu);
/* The vector to be taken next, -1: none whose priority suffices. `take`: it is in service from now on. */
int sio_apic_pending(const struct sio_soft *cpu);
int sio_apic_take(struct sio_soft *cpu);
/* Whether INTR of the PIC reaches this processor. */
int sio_apic_passes_extint(const struct sio_soft *cpu);
/* Nanoseconds of CLOCK_MONOTONIC when the timer is due; 0: it does not run. */
static inline uint64_t sio_apic_due(const struct sio_soft *cpu) { return cpu->apic.timer_due; }

static inline uint64_t sio_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
