/* The VMM's half of the software CPU: the record that it shares with the workers, commands, and what a dead worker leaves. */
#include "soft.h"

#include <sys/mman.h>

void *sio_soft_map(int fd, uint64_t size)
{
    void *address = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return address == MAP_FAILED ? 0 : address;
}

void sio_soft_unmap(void *address, uint64_t size) { munmap(address, size); }

uint64_t sio_soft_size(uint32_t vcpus)
{
    return (sizeof(struct sio_soft_machine) + vcpus * sizeof(struct sio_soft) + 4095) & ~4095ull;
}

struct sio_soft *sio_soft_cpu(struct sio_soft_machine *m, uint32_t index) { return &m->cpu[index]; }

struct kvm_run *sio_soft_record(struct sio_soft *cpu) { return (struct kvm_run *)cpu->run; }

int sio_soft_init(struct sio_soft_machine *m, uint32_t vcpus)
{
    if (vcpus == 0 || vcpus > SIO_MAX_VCPUS)
        return -EINVAL;
    m->vcpus = vcpus;
    for (uint32_t i = 0; i < vcpus; i++) {
        struct sio_soft *c = &m->cpu[i];
        c->index = i;
        c->vcpu.fd = c->vcpu.vm_fd = c->vcpu.event = c->vcpu.affinity = -1;
        c->vcpu.run_size = SIO_SOFT_RUN_BYTES;
        sio_soft_record(c)->exit_reason = SIO_SENTINEL;
        c->phase = SIO_SOFT_ENTRY;
    }
    return 0;
}

void sio_soft_command(struct sio_soft *c, struct sio_raise *raise, uint32_t what, int pid)
{
    sio_publish(&c->vcpu.command, what); /* SP-COMMAND */
    if (what != SIO_RUN)
        sio_store_relaxed(&sio_soft_record(c)->immediate_exit, 1);
    sio_fence_full();
    sio_futex_wake(&c->vcpu.command);
    sio_raise_wake(raise);
    if (pid > 0 && what != SIO_RUN)
        sio_syscall3(SYS_kill, pid, SIO_KICK_SIGNAL, 0);
}

void sio_soft_inspect(struct sio_soft *c, struct sio_raise *raise, int pid)
{
    sio_publish(&c->vcpu.inspect, 1); /* SP-COMMAND */
    sio_store_relaxed(&sio_soft_record(c)->immediate_exit, 1);
    sio_fence_full();
    sio_raise_wake(raise);
    if (pid > 0)
        sio_syscall3(SYS_kill, pid, SIO_KICK_SIGNAL, 0);
}

int sio_soft_bury(struct sio_soft_machine *m, uint32_t index)
{
    if (sio_swap_if(&m->token, index + 1, 0u))
        sio_futex_wake(&m->token);
    return sio_load_acquire(&m->cpu[index].phase) != SIO_SOFT_RUN;
}

void sio_soft_set_route(struct sio_soft_machine *m, uint32_t handle, uint32_t kind, uint32_t gsi, uint64_t address,
                        uint32_t data)
{
    struct sio_soft_route *r = &m->route[handle % SIO_RAISE_HANDLES];
    sio_publish(&r->generation, r->generation + 1);
    r->kind = kind;
    r->gsi = gsi;
    r->address = address;
    r->data = data;
    sio_store_release(&r->generation, r->generation + 1);
}

void sio_soft_doorbell(struct sio_soft_machine *m, uint32_t slot, int active)
{
    sio_publish(&m->doorbell[slot].active, (uint32_t)active);
    uint32_t above = SIO_SOFT_DOORBELLS;
    while (above && !m->doorbell[above - 1].active)
        above--;
    sio_store_release(&m->doorbells, above);
}
