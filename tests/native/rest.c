/* An owner that rests after an answer serves another vCPU's request at once, however long it would rest. */
#include "harness.h"

#include "owner.h"

#include <unistd.h>

#define BASE 0x1000ull
#define ACCESSES 100u
#define FOR_EVER (1u << 31)

static struct sio_fabric fabric;
static struct sio_owner owner;
static uint32_t vcpus, handled;

static void ask(void)
{
    struct sio_mailbox *box = sio_mailbox(&fabric, 0, handled % vcpus);
    uint64_t seq = (sio_load_relaxed(&box->state) >> 2) + 1;
    uint32_t op = handled & 1 ? SIO_WRITE : 0;
    sio_mailbox_request(box, SIO_STATE(seq, SIO_REQUEST), BASE, 0, 0, sio_command(0, 0, op, 4, SIO_MMIO));
}

/* The next vCPU asks before this one is answered; the last one ends all rests. */
static int handler(void *context, uint64_t offset, uint32_t size, int write, uint64_t *value)
{
    if (++handled < ACCESSES)
        ask();
    else
        owner.fabric.rest = 0;
    return 0;
}

static void is_interrupted(uint32_t n)
{
    vcpus = n;
    handled = 0;
    fabric = make_fabric(vcpus, 1, 1, 4);
    CHECK(sio_owner_init(&owner, &fabric, 0, -1) == 0, "no owner");
    owner.handlers[0] = (struct sio_handler){
        .kind = SIO_NATIVE, .space = SIO_MMIO, .base = BASE, .last = BASE + 15, .native = handler};
    owner.fabric.rest = FOR_EVER;
    ask();
    while (handled < ACCESSES)
        sio_owner_turn(&owner, 1000000, -1);
    for (uint32_t v = 0; v < vcpus; v++)
        CHECK((sio_load_relaxed(&sio_mailbox(&fabric, 0, v)->state) & 3) == SIO_DONE, "vCPU %u is not answered", v);
    sio_owner_free(&owner);
    free(fabric.base);
}

int main(void)
{
    alarm(5); /* a rest that is not interrupted ends here */
    is_interrupted(2);
    is_interrupted(16);
    is_interrupted(17); /* so many are not all looked at each time */
    printf("rest: an owner that rests serves others at once\n");
    return 0;
}
