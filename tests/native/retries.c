/* Entries that bring a vCPU nothing to do: a worker enters again, but one that gets nothing else for ever ends and says why.
 *
 * The worker's own sources run over a KVM_RUN of a few lines, which returns the same thing again and again. What a vCPU is told
 * comes from KVM's API (Documentation/virt/kvm/api.rst, struct kvm_run: exit reasons 0, 7, 10, 11; EAGAIN of a vCPU that waits
 * for its SIPI). An exit that the loop does not serve and that is tried again is such an entry too; one that is brought further is
 * not.
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

#include "worker.c"

#include <string.h>

static struct {
    long ret;            /* what an entry returns, and with 0 the exit's reason */
    uint32_t reason;
    uint64_t every;      /* one entry in so many is an access; 0: none is */
    uint64_t last;       /* the entry that is a shutdown; 0: none is */
    uint64_t entries;
    uint64_t close;      /* of these, those that follow each other closely: this process may lose its CPU for longer */
    uint64_t ticks;      /* when the last one was */
    uint32_t verdict;    /* on an exit that the loop does not serve; SIO_NO_QUESTION: nobody is asked */
} kvm;

static long fake_kvm_run(struct sio_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint64_t now = sio_ticks();
    kvm.entries++;
    kvm.close = sio_ticks_to_ns(&vcpu->client.fabric, now - kvm.ticks) > RETRY_NS / 2 ? 1 : kvm.close + 1;
    kvm.ticks = now;
    vcpu->question = kvm.verdict; /* it is there before it is asked for: nobody has to wait */
    run->exit_reason = kvm.reason;
    if (kvm.entries == kvm.last) {
        run->exit_reason = KVM_EXIT_SHUTDOWN;
        vcpu->question = SIO_GIVE_UP;
    } else if (kvm.every && kvm.entries % kvm.every == 0) {
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = KVM_EXIT_IO_OUT;
        run->io.size = 1;
        run->io.count = 1;
        run->io.port = 0x80;
        run->io.data_offset = SIO_PAGE / 2;
    } else
        return kvm.ret;
    return 0;
}

static uint32_t run_vcpu(long ret, uint32_t reason, uint64_t every, uint64_t last)
{
    static struct sio_vcpu vcpu;
    static uint8_t page[SIO_PAGE] SIO_ALIGNED;
    struct sio_fabric fabric = make_fabric(1, 1, 1, 2);

    kvm.ret = ret;
    kvm.reason = reason;
    kvm.every = every;
    kvm.last = last;
    kvm.entries = kvm.close = 0;
    memset(page, 0, sizeof page);
    memset(&vcpu, 0, sizeof vcpu);
    sio_client_init(&vcpu.client, &fabric, 0);
    vcpu.run = (struct kvm_run *)page;
    vcpu.event = vcpu.vm_fd = -1;
    vcpu.command = SIO_RUN;
    vcpu.asks = kvm.verdict != SIO_NO_QUESTION;
    the_vcpu = &vcpu;
    work(&vcpu);
    free(fabric.base);
    return vcpu.state;
}

static void ends(const char *what, long ret, uint32_t reason, uint32_t state)
{
    CHECK(run_vcpu(ret, reason, 0, 0) == state, "%s for ever: state %u", what, the_vcpu->state);
    CHECK(kvm.close < 2 * SIO_RETRIES, "%s for ever: %llu entries in a row", what, (unsigned long long)kvm.close);
    if (ret)
        CHECK(the_vcpu->detail == (uint64_t)-ret, "%s for ever: detail %llu", what, (unsigned long long)the_vcpu->detail);
    else
        CHECK(the_vcpu->reason == reason, "%s for ever: reason %u", what, the_vcpu->reason);
}

static void goes_on(const char *what, long ret, uint32_t reason, uint64_t every)
{
    CHECK(run_vcpu(ret, reason, every, 3 * SIO_RETRIES + 1) == SIO_SHUTDOWN, "%s: state %u after %llu entries", what,
          the_vcpu->state, (unsigned long long)kvm.entries);
}

int main(void)
{
    ends("KVM_EXIT_UNKNOWN", 0, KVM_EXIT_UNKNOWN, SIO_FAILED);
    ends("KVM_EXIT_INTR", 0, KVM_EXIT_INTR, SIO_FAILED);
    ends("KVM_EXIT_IRQ_WINDOW_OPEN", 0, KVM_EXIT_IRQ_WINDOW_OPEN, SIO_FAILED);
    ends("KVM_EXIT_SET_TPR", 0, KVM_EXIT_SET_TPR, SIO_FAILED);
    ends("EAGAIN", -EAGAIN, 0, SIO_BROKEN);
    goes_on("EAGAIN between accesses", -EAGAIN, 0, SIO_RETRIES / 2);
    goes_on("KVM_EXIT_SET_TPR between accesses", 0, KVM_EXIT_SET_TPR, SIO_RETRIES / 2);
    kvm.verdict = SIO_TRY_AGAIN;
    ends("KVM_EXIT_HYPERCALL, tried again", 0, KVM_EXIT_HYPERCALL, SIO_FAILED);
    goes_on("KVM_EXIT_HYPERCALL, tried again between accesses", 0, KVM_EXIT_HYPERCALL, SIO_RETRIES / 2);
    kvm.verdict = SIO_GO_ON;
    goes_on("KVM_EXIT_HYPERCALL, brought further", 0, KVM_EXIT_HYPERCALL, 0);
    kvm.verdict = SIO_NO_QUESTION;
    goes_on("signals", -EINTR, KVM_EXIT_INTR, 0);
    printf("retries: what brings nothing ends after %u entries in a row, and not where there are accesses in between\n", SIO_RETRIES);
    return 0;
}
