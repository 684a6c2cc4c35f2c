/* The synchronous path: publishes a request in the mailbox, rings the doorbell, waits, takes the reply. */
#ifndef SHARDIO_REQUEST_H
#define SHARDIO_REQUEST_H

#include "doorbell.h"

/* The reply's state is not what it should be: refused, aborted, or nonsense. */
static NEVER_INLINE enum sio_outcome no_answer(struct sio_client *c, uint64_t seq, uint64_t state)
{
    if (state == SIO_STATE(seq, SIO_REQUEST))
        return SIO_ABORTED;
    if (state != SIO_STATE(seq, SIO_REFUSED))
        sio_count(self(c)->malformed);
    return SIO_NOT_ANSWERED;
}

static NEVER_INLINE void note_lines(struct sio_client *c, uint32_t shard, uint32_t lines)
{
    uint32_t granted = sio_load_relaxed(&c->granted[shard]);
    c->lines |= lines & ((granted ? granted | SIO_LINE_MOVED | SIO_LINE_OUTPUT_MOVED : 0) | SIO_LINE_HOLD);
}

static ALWAYS_INLINE enum sio_outcome await_reply(struct sio_client *c, struct sio_mailbox *box, uint32_t shard, uint64_t seq,
                                                  struct sio_first_poll *first_poll, uint64_t *data)
{
    uint64_t state = sio_wait_change(&c->waiter, self(c), &box->state, SIO_STATE(seq, SIO_REQUEST), first_poll); /* SP-REPLY */
    uint64_t lines = sio_load_relaxed(&box->lines);
    if (unlikely(lines) && state != SIO_STATE(seq, SIO_REQUEST))
        note_lines(c, shard, (uint32_t)lines);
    if (unlikely(state != SIO_STATE(seq, SIO_DONE)))
        return no_answer(c, seq, state);
    *data = sio_load_relaxed(&box->data);
    return SIO_ANSWERED;
}

/* The wait alone, of an access whose service nobody times: what is timed must go as fast as what is not. */
static __attribute__((noinline)) enum sio_outcome await_reply_timed(struct sio_client *c, struct sio_route *to, uint64_t seq,
                                                                    uint64_t *data)
{
    struct sio_first_poll *first_poll = &to->first_poll;
    uint64_t begin = sio_ticks();
    enum sio_outcome outcome = await_reply(c, to->box, to->shard, seq, first_poll, data);
    sio_first_poll_learn(first_poll, sio_ticks() - begin);
    return outcome;
}

static NEVER_INLINE void take_sample(struct sio_client *c, const struct sio_route *to, uint64_t ticks)
{
    sio_hist_sample(&c->fabric, c->vcpu, sio_command_range(to->command), ticks);
    c->sampling = c->accesses < SIO_SAMPLE_FIRST ? 0 : c->sample_mask;
}

static NEVER_INLINE void refused(const struct sio_client *c, const struct sio_route *to, int write, uint64_t address, uint32_t size)
{
    struct sio_hist *hist = sio_hist_to_write(&c->fabric, c->vcpu, sio_command_range(to->command));
    sio_count(hist->refused);
    sio_note_access(&hist->last_refused, to->space, address, size, write);
}

static ALWAYS_INLINE enum sio_outcome request(struct sio_client *c, struct sio_route *to, uint32_t op, uint64_t address,
                                              uint32_t size, uint32_t count, uint64_t *data)
{
    uint32_t shard = to->shard;
    struct sio_client_shard *mine = to->mine;
    uint64_t seq = (mine->seq + 1) & SIO_PENDING_N, draw = c->draw;
    uint64_t command = to->command | sio_command(0, count, op, size, 0), begin = 0;
    int sample = (draw & c->sampling) == 0;
    if (unlikely(sample)) {
        command |= sio_command(0, 0, SIO_SAMPLE, 0, 0);
        begin = sio_ticks();
    }

    set_target(c, shard);
    sio_store_relaxed(&c->pending, SIO_PENDING(SIO_PENDING_SYNC, shard, seq));
    mine->seq = seq;
    sio_fence_compiler();
    sio_mailbox_request(to->box, SIO_STATE(seq, SIO_REQUEST), address, *data, mine->posted, command);
    /* SP-WAKEUP: the publication was a full fence */
    ring_if_asleep(c, mine, shard);
    /* While the owner is at work: what the next access would wait for. Drawn, so that devices asked in turn are all timed. */
    c->draw = ++c->accesses * 0x9e3779b97f4a7c15u >> 32;

    enum sio_outcome outcome;
    if (unlikely((draw >> 16 & (SIO_FIRST_POLL_EVERY - 1)) == 0)) {
        uint64_t timed = *data; /* in memory only here: another access's stays in a register */
        outcome = await_reply_timed(c, to, seq, &timed);
        *data = timed;
    } else
        outcome = await_reply(c, to->box, shard, seq, &to->first_poll, data);
    if (unlikely(sample))
        take_sample(c, to, sio_ticks() - begin);
    if (unlikely(outcome == SIO_NOT_ANSWERED)) /* the address from the line: no register holds it while an access waits */
        refused(c, to, op & SIO_WRITE, sio_load_relaxed(&to->box->address), size);
    return outcome;
}

#endif
