/* Kill -9 of a vCPU worker at every instruction: a fresh worker goes on, and each access is applied exactly once.
 *
 * The worker's and the client's own sources run in a child, one machine instruction at a time, over a KVM_RUN that is a few
 * lines here and, as the kernel's, cannot be cut in half. Where an instruction has changed memory, everything is saved, a
 * fresh worker runs from there to the guest's end, what the devices and the guest have seen is compared with the whole
 * program's effect, and everything is put back; then again, with maps by which one ring, or none, is posted to any more.
 * The sources come from the include path, so that a mutant of them can take their place: each must be found out
 * (mutants.sh).
 *
 * The owner's scan is one step of the same clock: it runs as soon as a request or a posted write is there.
 */
#include "harness.h"

#include "sys.h"

struct sio_vcpu;
static long fake_kvm_run(struct sio_vcpu *vcpu);
static struct sio_vcpu *the_vcpu;

/* The one system call that is not the kernel's here. */
#undef sio_syscall3
#define sio_syscall3(n, a, b, c)                                                                           \
    ((n) == SYS_ioctl ? fake_kvm_run(the_vcpu) : sio_syscall6((n), (long)(a), (long)(b), (long)(c), 0, 0, 0))

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

#define SYNC_PORT 0x10
#define POSTED_PORT 0x20
#define SYNC_BASE 0x1000ull
#define POSTED_BASE 0x2000ull
#define FAR_BASE 0x3000ull /* posted, on the other shard */
#define NOWHERE 0x9000ull
#define SHARDS 2u
#define RANGES 5u
#define SLOTS 4u
#define LOG 64u
#define LOOK_AT (EXITS - 3) /* the exit before which the VMM has a look */
#define EXITS (sizeof program / sizeof program[0])
#define EFFECTS (EXITS - 1 + 4 * 2 + 2 * 2) /* nobody is at NOWHERE; four cuts of three bytes, two strings of three words */

/* ---- the guest ------------------------------------------------------------------------------------------------------ */

struct access {
    uint32_t reason;
    int write;
    uint64_t address;
    uint32_t size;
    uint32_t count;
    uint64_t data;
};

static const struct access program[] = {
    {KVM_EXIT_IO, 0, SYNC_PORT, 4, 1, 0},
    {KVM_EXIT_IO, 1, SYNC_PORT, 2, 1, 0xbeef},
    {KVM_EXIT_MMIO, 1, POSTED_BASE + 8, 8, 1, 0x1122334455667788ull},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 1, 1, 0x42},
    {KVM_EXIT_MMIO, 0, SYNC_BASE + 4, 8, 1, 0},
    {KVM_EXIT_MMIO, 1, SYNC_BASE, 3, 1, 0xc0ffee},           /* cut by a page's end: byte by byte */
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 3, 1, 0xdeface},
    {KVM_EXIT_MMIO, 0, SYNC_BASE, 3, 1, 0},
    {KVM_EXIT_IO, 1, SYNC_PORT, 2, 3, 0x665544332211ull},
    {KVM_EXIT_IO, 0, SYNC_PORT, 2, 3, 0},
    {KVM_EXIT_IO, 1, POSTED_PORT, 1, 1, 7},
    /* a ring once open: on to its end and beyond, past another access, past one to another ring */
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 4, 1, 0x1001},
    {KVM_EXIT_MMIO, 1, POSTED_BASE + 4, 4, 1, 0x1002},
    {KVM_EXIT_MMIO, 1, POSTED_BASE + 8, 4, 1, 0x1003},
    {KVM_EXIT_MMIO, 1, POSTED_BASE + 2, 2, 1, 0x1004},
    {KVM_EXIT_MMIO, 1, POSTED_BASE + 1, 1, 1, 0x15},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 8, 1, 0x1006},
    {KVM_EXIT_MMIO, 0, SYNC_BASE, 4, 1, 0},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 4, 1, 0x1007},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2001},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2002},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 4, 1, 0x1008},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 4, 1, 0x1009},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2003},
    {KVM_EXIT_MMIO, 0, NOWHERE, 4, 1, 0},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2004},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 3, 1, 0xabcdef},
    /* to a ring that has come further than the one left, whose route is known again before it is posted to again */
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2005},
    {KVM_EXIT_MMIO, 1, POSTED_BASE, 4, 1, 0x100a},
    {KVM_EXIT_MMIO, 0, FAR_BASE, 4, 1, 0},
    {KVM_EXIT_MMIO, 1, FAR_BASE, 4, 1, 0x2006},
    {KVM_EXIT_MMIO, 0, SYNC_BASE + 8, 1, 1, 0},
    /* not the worker's to serve: the VMM is asked about each of them, once */
    {KVM_EXIT_INTERNAL_ERROR, 1, 0, 1, 1, 0},
    {KVM_EXIT_INTERNAL_ERROR, 1, 0, 1, 1, 0},
    {KVM_EXIT_IO, 1, SYNC_PORT, 1, 1, 0x77},
};

struct effect {
    uint64_t offset, value;
    uint32_t size, write;
};

/* What a shard's devices have seen: in order, which two shards' effects are not. */
struct effects {
    uint32_t n;
    struct effect effect[LOG];
};

/* All that a killed worker leaves behind, in one mapping that outlives it. */
struct world {
    struct sio_vcpu vcpu;
    uint8_t run[2 * SIO_PAGE];
    uint32_t in_kernel;
    uint32_t at;          /* of the program */
    uint32_t looked;      /* the VMM has had a look at where the guest is */
    uint32_t outside;     /* the exit `at` is the worker's to complete */
    uint64_t result[EXITS];
    struct effects effects[SHARDS];
    uint8_t fabric[] SIO_ALIGNED;
};

static struct world *world;
static struct sio_owner owner[SHARDS];

static void complete_last(struct kvm_run *run)
{
    const struct access *a = &program[world->at];
    const uint8_t *from = a->reason == KVM_EXIT_IO ? (uint8_t *)run + run->io.data_offset : run->mmio.data;
    if (!a->write)
        memcpy(&world->result[world->at], from, a->size * a->count);
    world->at++;
    world->outside = 0;
}

static void present_next(struct kvm_run *run)
{
    const struct access *a = &program[world->at];
    run->exit_reason = a->reason;
    world->outside = 1;
    if (a->reason == KVM_EXIT_IO) {
        run->io.direction = a->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
        run->io.size = (uint8_t)a->size;
        run->io.port = (uint16_t)a->address;
        run->io.count = a->count;
        run->io.data_offset = SIO_PAGE;
        memcpy(world->run + SIO_PAGE, &a->data, 8);
    } else if (a->reason == KVM_EXIT_MMIO) {
        run->mmio.phys_addr = a->address;
        run->mmio.len = a->size;
        run->mmio.is_write = (uint8_t)a->write;
        memcpy(run->mmio.data, &a->data, 8);
    }
}

static long fake_kvm_run(struct sio_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    sio_store_relaxed(&world->in_kernel, 1);
    sio_fence_compiler();
    if (world->outside)
        complete_last(run);
    if (world->at == LOOK_AT && !world->looked) {
        world->looked = 1;
        vcpu->inspect = 1;
        sio_fence_compiler();
        sio_store_relaxed(&world->in_kernel, 0);
        return -EINTR;
    }
    if (world->at < EXITS)
        present_next(run);
    else
        run->exit_reason = KVM_EXIT_SHUTDOWN;
    sio_fence_compiler();
    sio_store_relaxed(&world->in_kernel, 0);
    return 0;
}

/* ---- the device ----------------------------------------------------------------------------------------------------- */

static int device(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    struct effects *seen = context;
    if (!write)
        *value = 0xa0b0c0d0e0f00000ull + seen->n * 0x101010101ull; /* no two reads are alike */
    if (seen->n < LOG)
        seen->effect[seen->n] = (struct effect){offset, *value & ~0ull >> (64 - size * 8), size, (uint32_t)write};
    seen->n++;
    return 0;
}

/* The VMM: brings the guest past what the worker does not serve, which is an effect too, and ends it at its shutdown. */
static uint32_t judge(void)
{
    struct effects *seen = &world->effects[0];
    if (the_vcpu->question != SIO_ASKED)
        return 0;
    if (the_vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN) {
        sio_vcpu_answer(the_vcpu, SIO_GIVE_UP);
        return 1;
    }
    if (the_vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
        if (seen->n < LOG)
            seen->effect[seen->n] = (struct effect){.offset = ~0ull, .write = 1};
        seen->n++;
    }
    sio_vcpu_answer(the_vcpu, SIO_GO_ON);
    return 1;
}

static uint32_t scan(void)
{
    uint32_t served = judge();
    for (uint32_t s = 0; s < SHARDS; s++)
        served += sio_owner_scan(&owner[s]);
    return served;
}

static void set_handler(uint32_t shard, uint32_t range, uint32_t space, uint64_t base)
{
    owner[shard].handlers[range] = (struct sio_handler){.kind = SIO_NATIVE, .space = (uint16_t)space, .base = base, .last = base + 15,
                                                 .native = device, .context = &world->effects[shard]};
}

/* ---- the worker ----------------------------------------------------------------------------------------------------- */

static void publish_map(uint32_t posted, uint32_t far)
{
    const struct sio_map_entry map[] = {
        {SYNC_PORT, SYNC_PORT + 15, 1, 0, 0}, {POSTED_PORT, POSTED_PORT + 15, 1, 1, posted},
        {SYNC_BASE, SYNC_BASE + 15, 1, 2, 0}, {POSTED_BASE, POSTED_BASE + 15, 1, 3, posted},
        {FAR_BASE, FAR_BASE + 15, 2, 4, far},
    };
    CHECK(sio_map_publish(&owner->fabric, map, 2, 3) == 0, "no map");
}

static void build(int membarrier, int traced)
{
    uint64_t size = sizeof *world + sio_fabric_size(1, SHARDS, RANGES, SLOTS);
    struct sio_fabric fabric;

    world = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(world != MAP_FAILED, "no memory");
    CHECK(sio_fabric_create(&fabric, world->fabric, 1, SHARDS, RANGES, SLOTS) == 0, "no fabric");
    for (uint32_t s = 0; s < SHARDS; s++) {
        CHECK(sio_owner_init(&owner[s], &fabric, s, -1) == 0, "no owner");
        owner[s].posted_ranges = 1;
    }
    publish_map(SIO_RANGE_POSTED, SIO_RANGE_POSTED);
    set_handler(0, 0, SIO_PIO, SYNC_PORT);
    set_handler(0, 1, SIO_PIO, POSTED_PORT);
    set_handler(0, 2, SIO_MMIO, SYNC_BASE);
    set_handler(0, 3, SIO_MMIO, POSTED_BASE);
    set_handler(1, 4, SIO_MMIO, FAR_BASE);
    the_vcpu = &world->vcpu;
    sio_client_init(&the_vcpu->client, &fabric, 0);
    the_vcpu->client.sample_mask = ~0u;
    the_vcpu->client.waiter.membarrier = membarrier && fabric.membarrier;
    the_vcpu->client.tracing = (uint32_t)traced;
    memset(fabric.trace->wanted, 0xff, sizeof fabric.trace->wanted);
    for (uint32_t n = 0; n < SHARDS; n++)
        fabric.shard[n].traced = (uint32_t)traced;
    the_vcpu->run = (struct kvm_run *)world->run;
    the_vcpu->event = -1;
    the_vcpu->vm_fd = -1;
    the_vcpu->command = SIO_RUN;
    the_vcpu->asks = 1;
}

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
        work(the_vcpu);
        _exit(0);
    }
    return pid;
}

/* A fresh worker, to the guest's end. Non-zero when it does not get there. */
static int run_to_end(void)
{
    uint64_t deadline = sio_ticks() + sio_ns_to_ticks(&owner->fabric, 2000000000u);
    pid_t pid = start_worker(0);
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (scan() == 0)
            sio_yield();
        if (sio_ticks() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return 1;
        }
    }
    scan();
    return !WIFEXITED(status) || world->vcpu.state != SIO_SHUTDOWN;
}

/* ---- what must have happened, and what has ----------------------------------------------------------------------------- */

struct outcome {
    uint64_t result[EXITS];
    struct effects effects[SHARDS];
};

static struct outcome look(void)
{
    struct outcome seen;
    memset(&seen, 0, sizeof seen);
    memcpy(seen.result, world->result, sizeof seen.result);
    memcpy(seen.effects, world->effects, sizeof seen.effects);
    return seen;
}

static uint32_t count(const struct outcome *seen)
{
    uint32_t n = 0;
    for (uint32_t s = 0; s < SHARDS; s++)
        n += seen->effects[s].n;
    return n;
}

struct saved {
    struct sio_owner owner[SHARDS];
    uint64_t posted[SHARDS];
    uint64_t size;
    uint8_t *world;
};

static void save(struct saved *s)
{
    memcpy(s->owner, owner, sizeof owner);
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        s->posted[shard] = owner[shard].posted[0];
    memcpy(s->world, world, s->size);
}

static void put_back(const struct saved *s)
{
    memcpy(owner, s->owner, sizeof owner);
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        owner[shard].posted[0] = s->posted[shard];
    memcpy(world, s->world, s->size);
}

static void report(const struct outcome *expected, const struct outcome *seen, uint32_t exit, uint64_t rip)
{
    fprintf(stderr, "kill: a worker killed during exit %u of %zu (instruction %#llx) is not made good: %u effects, expected %u\n", exit,
            EXITS, (unsigned long long)rip, count(seen), count(expected));
    for (uint32_t i = 0; i < EXITS; i++)
        if (seen->result[i] != expected->result[i])
            fprintf(stderr, "kill: the guest read %#llx at exit %u, expected %#llx\n", (unsigned long long)seen->result[i], i,
                    (unsigned long long)expected->result[i]);
}

/* Whoever watches never takes a posted write for one that nobody has posted: its owner may have taken it already. */
static int well_counted(void)
{
    for (uint32_t s = 0; s < SHARDS; s++)
        if (sio_client_posted(&the_vcpu->client, s) - owner[s].posted[0] > SLOTS)
            return 0;
    return 1;
}

/* The trace of the stepped worker, which was resumed at each step: each record is whole, and none is missing. */
static void read_ring(void)
{
    struct sio_trace_record out[SIO_TRACE_SLOTS];
    uint64_t tail = 0, unfinished = 0, lost = 0, n;
    n = sio_trace_collect(sio_trace_ring(&owner->fabric, 0), &tail, &unfinished, out, SIO_TRACE_SLOTS, &lost);
    CHECK(n == SIO_TRACE_SLOTS && n + lost == owner->fabric.trace_rings[0].head, "%llu records", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++)
        CHECK(out[i].kind == SIO_TRACE_ACCESS && out[i].end >= out[i].begin, "record %llu", (unsigned long long)i);
}

/* Kills the worker here: non-zero when a fresh one does not make that good. */
static int kill_here(const struct saved *now, const struct outcome *expected, pid_t pid)
{
    int failed = run_to_end();
    struct outcome seen = look();
    if (failed || memcmp(&seen, expected, sizeof seen) != 0) {
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, pid, 0, &registers);
        fprintf(stderr, "%s\n", failed ? "kill: the fresh worker does not reach the end" : "kill: the effect differs");
        report(expected, &seen, ((struct world *)now->world)->at, registers.rip);
        return 1;
    }
    put_back(now);
    return 0;
}

/* `kill fences`: where there is no membarrier, every posted write goes the longer way. `kill traced`: with trace records, the writer of
 * which is killed in the middle of each, too. */
int main(int argc, char **argv)
{
    struct saved begin, now;
    struct outcome expected, seen;
    uint64_t steps = 0, kills = 0;
    int status;

    int traced = argc > 1 && strcmp(argv[1], "traced") == 0;
    build(argc < 2 || strcmp(argv[1], "fences") != 0, traced);
    begin.size = now.size = sizeof *world + owner->fabric.size;
    begin.world = malloc(begin.size);
    now.world = malloc(now.size);
    save(&begin);
    CHECK(run_to_end() == 0, "the program does not even run in one piece");
    expected = look();
    CHECK(count(&expected) == EFFECTS && world->at == EXITS, "%u effects", count(&expected));
    put_back(&begin);

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
        int failed = kill_here(&now, &expected, pid);
        for (uint32_t less = 0; !failed && less < 3; less++) { /* the fresh worker finds that one ring, or none, is posted to */
            publish_map(less == 1 ? SIO_RANGE_POSTED : 0, less == 2 ? SIO_RANGE_POSTED : 0);
            failed = kill_here(&now, &expected, pid);
        }
        if (failed) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return 1;
        }
        kills++;
        scan();
        if (!well_counted()) {
            fprintf(stderr, "kill: the owner has taken more than the client says it has posted\n");
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return 1;
        }
    }
    seen = look();
    CHECK(memcmp(&seen, &expected, sizeof seen) == 0, "the stepped worker itself");
    if (traced)
        read_ring();
    CHECK(kills > 18 * EXITS, "only %llu kills", (unsigned long long)kills);
    printf("kill: %llu instructions, killed after each of the %llu that change memory: every access exactly once\n",
           (unsigned long long)steps, (unsigned long long)kills);
    free(begin.world);
    free(now.world);
    for (uint32_t s = 0; s < SHARDS; s++)
        sio_owner_free(&owner[s]);
    return 0;
}
