/* Lays a fabric out, views one that a peer laid out, and measures the tick. */
#include "fabric.h"
#include "pace.h"

#include "sys.h"

#include <linux/membarrier.h>
#include <string.h>

static uint64_t lines(uint64_t bytes, uint64_t align) { return (bytes + align - 1) / align * align; }

/* Where `at` lies in the mapping: a number, since there is no mapping yet when only the size is asked for. */
#define PART(member) (f->member = (__typeof__(f->member))((uintptr_t)f->base + at))

/* Points to every part; returns where the last one ends: other counts end elsewhere. */
static uint64_t arrange(struct sio_fabric *f)
{
    uint64_t rings = (uint64_t)f->shards * f->vcpus, rows = (uint64_t)f->vcpus + f->shards;
    f->posted_shift = (uint32_t)__builtin_ctz(f->posted_slots);
    uint64_t at = sizeof(struct sio_header);

    PART(shard);
    at += (uint64_t)f->shards * sizeof *f->shard;
    PART(vcpu);
    at += (uint64_t)f->vcpus * sizeof *f->vcpu;
    PART(mailboxes);
    at += rings * sizeof *f->mailboxes;
    PART(credits);
    at += rings * sizeof *f->credits;
    PART(posted);
    at += rings * f->posted_slots * sizeof *f->posted;
    at = lines(at, SIO_PAGE);
    PART(side);
    at += (uint64_t)f->vcpus * SIO_SIDE_BYTES;
    PART(map);
    at += sizeof *f->map + 2 * (sizeof(struct sio_map_side) + lines((uint64_t)f->ranges * sizeof(struct sio_map_place), SIO_LINE));
    f->row = f->ranges + (f->ranges & 1); /* a row's counters share no line with another writer's */
    at = lines(at, SIO_LINE);
    PART(stats);
    at += (uint64_t)f->shards * f->row * sizeof *f->stats;
    PART(interrupts);
    at = lines(at + (uint64_t)f->shards * f->row * sizeof *f->interrupts, SIO_LINE);
    f->in_use_row = (uint32_t)(lines(((uint64_t)f->ranges + 7) / 8, SIO_LINE) / sizeof *f->in_use);
    PART(in_use);
    at += rows * f->in_use_row * sizeof *f->in_use;
    at = lines(at, SIO_PAGE);
    PART(wide);
    at = lines(at + 2ull * f->ranges * sizeof *f->wide, SIO_PAGE);
    PART(hists);
    at += rows * f->ranges * sizeof *f->hists;
    uint64_t end = at;
    at = lines(at, SIO_PAGE);
    PART(trace);
    at += sizeof *f->trace;
    PART(trace_rings);
    /* A page for the gap, whatever it is: a gap that fills the page would hide other counts. */
    return end + SIO_PAGE + sizeof *f->trace + ((uint64_t)f->vcpus + f->shards) * sizeof *f->trace_rings;
}

static int sane(const struct sio_fabric *f)
{
    return f->vcpus && f->vcpus <= SIO_MAX_VCPUS && f->shards && f->shards <= SIO_MAX_SHARDS && f->ranges &&
           f->ranges <= SIO_MAX_RANGES && f->posted_slots >= 2 && f->posted_slots <= SIO_MAX_POSTED &&
           (f->posted_slots & (f->posted_slots - 1)) == 0;
}

uint64_t sio_fabric_size(uint32_t vcpus, uint32_t shards, uint32_t ranges, uint32_t posted_slots)
{
    struct sio_fabric f = {.vcpus = vcpus, .shards = shards, .ranges = ranges, .posted_slots = posted_slots};
    return sane(&f) ? lines(arrange(&f), SIO_PAGE) : 0;
}

uint64_t sio_fabric_backed_size(uint32_t vcpus, uint32_t shards, uint32_t ranges, uint32_t posted_slots, uint64_t *untraced)
{
    struct sio_fabric f = {.vcpus = vcpus, .shards = shards, .ranges = ranges, .posted_slots = posted_slots};
    if (!sane(&f))
        return *untraced = 0;
    arrange(&f);
    *untraced = (uintptr_t)f.trace;
    return (uintptr_t)f.wide;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Over 5 ms, the better of three: good to about 0.1 %. */
static uint64_t measure_ticks_to_ns_32(void)
{
    uint64_t best_span = ~0ull, best = 1ull << 32;
    for (int i = 0; i < 3; i++) {
        uint64_t ns0 = monotonic_ns(), t0 = sio_ticks(), ns1, t1;
        do {
            ns1 = monotonic_ns();
            t1 = sio_ticks();
        } while (ns1 - ns0 < 5000000u);
        if (ns1 - ns0 < best_span && t1 > t0) {
            best_span = ns1 - ns0;
            best = (uint64_t)(((unsigned __int128)(ns1 - ns0) << 32) / (t1 - t0));
        }
    }
    return best ? best : 1;
}

int sio_fabric_create(struct sio_fabric *f, void *base, uint32_t vcpus, uint32_t shards, uint32_t ranges,
                      uint32_t posted_slots)
{
    memset(f, 0, sizeof *f);
    f->base = (uint8_t *)base;
    f->vcpus = vcpus;
    f->shards = shards;
    f->ranges = ranges;
    f->posted_slots = posted_slots;
    if (!sane(f))
        return -EINVAL;
    uint64_t end = arrange(f);
    f->size = lines(end, SIO_PAGE);
    f->ticks_to_ns_32 = measure_ticks_to_ns_32();
    f->membarrier = sio_membarrier_register() == 0;
    uint32_t pause_ticks, yield_ticks;
    sio_pace_measure(f, &pause_ticks, &yield_ticks);
    sio_pace_follow(f, pause_ticks, yield_ticks);
    struct sio_header header = {
        .magic = SIO_MAGIC,
        .layout_version = SIO_LAYOUT_VERSION,
        .header_size = sizeof header,
        .total_size = end,
        .vcpus = vcpus,
        .shards = shards,
        .ranges = ranges,
        .posted_slots = posted_slots,
        .ticks_to_ns_32 = f->ticks_to_ns_32,
        .membarrier = f->membarrier,
        .pause_ticks = pause_ticks,
        .yield_ticks = yield_ticks,
    };
    memcpy(base, &header, sizeof header);
    return 0;
}

int sio_fabric_attach(struct sio_fabric *f, void *base, uint64_t size)
{
    struct sio_header header;
    memset(f, 0, sizeof *f);
    if (size < sizeof header)
        return -EPROTO;
    memcpy(&header, base, sizeof header);
    if (header.magic != SIO_MAGIC)
        return -EPROTO;
    if (header.layout_version != SIO_LAYOUT_VERSION || header.header_size != sizeof header)
        return -EPROTONOSUPPORT;
    f->base = (uint8_t *)base;
    f->vcpus = header.vcpus;
    f->shards = header.shards;
    f->ranges = header.ranges;
    f->posted_slots = header.posted_slots;
    f->ticks_to_ns_32 = header.ticks_to_ns_32;
    f->membarrier = header.membarrier != 0;
    /* A tick between 10 ps and 1 us: what any x86 or Arm counter has. */
    if (!sane(f) || f->ticks_to_ns_32 < (1ull << 32) / 100 || f->ticks_to_ns_32 > (1000ull << 32))
        return -EBADMSG;
    sio_pace_follow(f, header.pause_ticks, header.yield_ticks);
    uint64_t end = arrange(f);
    f->size = lines(end, SIO_PAGE);
    return end == header.total_size && f->size <= size ? 0 : -EBADMSG;
}

uint32_t sio_fabric_version(const void *base) { return ((const struct sio_header *)base)->layout_version; }

int sio_membarrier_register(void)
{
    long ret = sio_syscall3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
    return (int)(ret < 0 ? ret : sio_membarrier());
}

int sio_membarrier(void) { return (int)sio_syscall3(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0); }
