/* Kill -9 of a vCPU worker at every instruction, where the interrupt controllers are devices: a fresh worker goes on, every access
 * is applied once, no edge is lost to either controller, both end with the true levels, and each vector that an INTA cycle took is
 * delivered, once.
 *
 * As kill.c does, over a KVM_RUN and a KVM_INTERRUPT that are a few lines here: the worker's and the client's own sources run in
 * a child, one machine instruction at a time; where an instruction has changed memory, a fresh worker runs from there to the
 * guest's end, what has happened is looked at, and everything is put back.
 */
#include "harness.h"

#include "sys.h"

static long fake_ioctl(unsigned long request, const void *argument);

#undef sio_syscall3
#define sio_syscall3(n, a, b, c)                                                                           \
    ((n) == SYS_ioctl ? fake_ioctl((unsigned long)(b), (const void *)(uintptr_t)(c))                       \
                      : sio_syscall6((n), (long)(a), (long)(b), (long)(c), 0, 0, 0))

#include "client.c"
#include "doorbell.c"
#include "journal.c"
#include "posting.c"
#include "route_cache.c"
#include "trace.c"
#include "worker.c"

#include "owner.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <unistd.h>

#define PORT 0x10
#define EDGE_LINE 5
#define LEVEL_LINE 9
#define EXTINT_BIT 24
#define ACCESSES 6u /* each raises the edge line; odd ones raise the level line, even ones lower it */
#define VECTOR 0x20u
#define MOST 64u

/* All that a killed worker leaves behind, in one mapping that outlives it. */
struct world {
    struct sio_vcpu vcpu;
    uint8_t run[2 * SIO_PAGE];
    uint32_t in_kernel, at, outside;
    uint32_t injected;                      /* a vector that KVM holds until the next entry; 0: none */
    uint32_t delivered[MOST], deliveries;
    uint32_t writes;                        /* to the port */
    uint32_t pending, taken;                /* edges that the PIC has not acknowledged; INTA cycles */
    uint32_t edges[2][ACCESSES + 1];        /* by controller and by the writes so far */
    uint32_t levels[2];                     /* what the controllers were told last */
    uint8_t fabric[] SIO_ALIGNED;
};

static struct world *world;
static struct sio_owner owner;

/* ---- KVM ------------------------------------------------------------------------------------------------------------ */

static void enter_and_leave(struct kvm_run *run)
{
    if (world->injected && world->deliveries < MOST)
        world->delivered[world->deliveries++] = world->injected;
    world->injected = 0;
    if (world->outside) {
        world->outside = 0;
        world->at++;
    }
    run->ready_for_interrupt_injection = 0;
    if (run->request_interrupt_window) {
        run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
        run->ready_for_interrupt_injection = 1;
    } else if (world->at < ACCESSES) {
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = KVM_EXIT_IO_OUT;
        run->io.size = 1;
        run->io.port = PORT;
        run->io.count = 1;
        run->io.data_offset = SIO_PAGE;
        world->run[SIO_PAGE] = (uint8_t)world->at;
        world->outside = 1;
    } else
        run->exit_reason = KVM_EXIT_SHUTDOWN;
}

static long fake_ioctl(unsigned long request, const void *argument)
{
    long ret = 0;
    sio_store_relaxed(&world->in_kernel, 1);
    sio_fence_compiler();
    if (request == KVM_RUN)
        enter_and_leave(world->vcpu.run);
    else if (request == KVM_INTERRUPT) {
        if (world->injected)
            ret = -EEXIST;
        else
            world->injected = ((const struct kvm_interrupt *)argument)->irq;
    }
    sio_fence_compiler();
    sio_store_relaxed(&world->in_kernel, 0);
    return ret;
}

/* ---- the devices ---------------------------------------------------------------------------------------------------- */

static int port(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    world->writes++;
    sio_owner_raise(&owner, EDGE_LINE);
    sio_owner_set_level(&owner, LEVEL_LINE, world->writes & 1);
    return 0;
}

static int controller(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    uintptr_t which = (uintptr_t)context;
    if (!write) { /* the PIC's INTA cycle */
        *value = VECTOR + world->taken++;
        world->pending = 0;
        sio_owner_set_level(&owner, EXTINT_BIT, 0);
        return 0;
    }
    world->levels[which] = (uint32_t)(*value >> 32);
    if (*value >> EDGE_LINE & 1) {
        world->edges[which][world->writes <= ACCESSES ? world->writes : ACCESSES]++;
        if (which == 0 && !world->pending) {
            world->pending = 1;
            sio_owner_set_level(&owner, EXTINT_BIT, 1);
        }
    }
    return 0;
}

static void place(uint32_t range, uint32_t space, uint64_t base, uint64_t last, sio_native_handler handler, uintptr_t context)
{
    owner.handlers[range] = (struct sio_handler){.kind = SIO_NATIVE, .space = (uint16_t)space, .base = base, .last = last,
                                                 .native = handler, .context = (void *)context};
}

static void build(void)
{
    uint64_t size = sizeof *world + sio_fabric_size(1, 1, 3, 4);
    struct sio_fabric fabric;
    const struct sio_map_entry map[] = {{PORT, PORT, 1, 0, 0},
                                        {SIO_PIC_WIRES, SIO_PIC_WIRES + SIO_WIRES_SIZE - 1, 1, 1, 0},
                                        {SIO_IOAPIC_WIRES, SIO_IOAPIC_WIRES + SIO_WIRES_SIZE - 1, 1, 2, 0}};

    world = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(world != MAP_FAILED, "no memory");
    CHECK(sio_fabric_create(&fabric, world->fabric, 1, 1, 3, 4) == 0, "no fabric");
    CHECK(sio_owner_init(&owner, &fabric, 0, -1) == 0, "no owner");
    CHECK(sio_map_publish(&owner.fabric, map, 1, 2) == 0, "no map");
    place(0, SIO_PIO, PORT, PORT, port, 0);
    place(1, SIO_MMIO, SIO_PIC_WIRES, SIO_PIC_WIRES + SIO_WIRES_SIZE - 1, controller, 0);
    place(2, SIO_MMIO, SIO_IOAPIC_WIRES, SIO_IOAPIC_WIRES + SIO_WIRES_SIZE - 1, controller, 1);
    struct sio_vcpu *v = &world->vcpu;
    sio_client_init(&v->client, &fabric, 0);
    v->client.sample_mask = ~0u;
    v->client.granted[0] = 1u << EDGE_LINE | 1u << LEVEL_LINE | SIO_LINE_EXTINT;
    v->wired = SIO_WIRED_PIC | SIO_WIRED_IOAPIC;
    v->run = (struct kvm_run *)world->run;
    v->event = v->vm_fd = v->affinity = -1;
    v->command = SIO_RUN;
}

/* ---- the worker ----------------------------------------------------------------------------------------------------- */

static pid_t start_worker(int stepped)
{
    pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        if (stepped) {
            if (ptrace(PTRACE_TRACEME, 0, 0, 0))
                _exit(77);
            raise(SIGSTOP);
        }
        work(&world->vcpu);
        _exit(0);
    }
    return pid;
}

static int run_to_end(void)
{
    uint64_t deadline = sio_ticks() + sio_ns_to_ticks(&owner.fabric, 2000000000u);
    pid_t pid = start_worker(0);
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (sio_owner_scan(&owner) == 0)
            sio_yield();
        if (sio_ticks() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return 1;
        }
    }
    return !WIFEXITED(status) || world->vcpu.state != SIO_SHUTDOWN;
}

/* What is wrong at the guest's end; NULL: nothing. */
static const char *fault(void)
{
    if (world->writes != ACCESSES)
        return "an access was lost or made twice";
    for (uint32_t n = 1; n <= ACCESSES; n++)
        if (!world->edges[0][n] || !world->edges[1][n])
            return "an edge was lost";
    for (int which = 0; which < 2; which++)
        if (world->levels[which] != (ACCESSES & 1) << LEVEL_LINE)
            return "a controller has an old level";
    if (world->deliveries != world->taken || world->taken < ACCESSES)
        return "a vector was lost or delivered twice";
    for (uint32_t n = 0; n < world->deliveries; n++)
        if (world->delivered[n] != VECTOR + n)
            return "vectors were delivered out of order";
    return world->pending ? "an interrupt waits for ever" : NULL;
}

struct saved {
    struct sio_owner owner;
    uint64_t posted, size;
    uint8_t *world;
};

static void save(struct saved *s)
{
    s->owner = owner;
    s->posted = owner.posted[0];
    memcpy(s->world, world, s->size);
}

static void put_back(const struct saved *s)
{
    owner = s->owner;
    owner.posted[0] = s->posted;
    memcpy(world, s->world, s->size);
}

int main(void)
{
    struct saved now;
    uint64_t steps = 0, kills = 0;
    const char *wrong;
    int status;

    build();
    now.size = sizeof *world + owner.fabric.size;
    now.world = malloc(now.size);
    save(&now);
    CHECK(run_to_end() == 0, "the program does not even run in one piece");
    CHECK((wrong = fault()) == NULL, "in one piece: %s", wrong);
    put_back(&now);

    pid_t pid = start_worker(1);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        puts("kill: skipped: ptrace is not permitted here, so a worker cannot be stopped at each instruction");
        return 0;
    }
    for (;; steps++) {
        save(&now);
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0, "step");
        waitpid(pid, &status, 0);
        if (WIFEXITED(status))
            break;
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "status %#x", (unsigned)status);
        if (memcmp(now.world, world, now.size) == 0 || world->in_kernel)
            continue;
        save(&now);
        wrong = run_to_end() ? "the fresh worker does not reach the end" : fault();
        if (wrong) {
            struct user_regs_struct registers;
            ptrace(PTRACE_GETREGS, pid, 0, &registers);
            fprintf(stderr, "kill: a worker killed after %u writes (instruction %#llx) is not made good: %s\n",
                    ((struct world *)now.world)->writes, (unsigned long long)registers.rip, wrong);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return 1;
        }
        put_back(&now);
        kills++;
        sio_owner_scan(&owner);
    }
    CHECK((wrong = fault()) == NULL, "the stepped worker itself: %s", wrong);
    CHECK(kills > 50 * ACCESSES, "only %llu kills", (unsigned long long)kills);
    printf("kill: %llu instructions with wires, killed after each of the %llu that change memory: no interrupt lost\n",
           (unsigned long long)steps, (unsigned long long)kills);
    free(now.world);
    sio_owner_free(&owner);
    return 0;
}
