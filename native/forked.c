/* Keeps forks of a shard's process out of its rings. */
#include "forked.h"

#include <pthread.h>
#include <sys/mman.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct sio_owner *kept; /* all of this process's, linked by `next_kept` */
static int registered;

static void lock(void) { pthread_mutex_lock(&guard); }
static void unlock(void) { pthread_mutex_unlock(&guard); }

/* In the child: private memory where the segment was, and nobody to call. */
static void disown(struct sio_owner *o)
{
    mmap(o->fabric.base, o->fabric.size, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    for (uint32_t range = 0; range < o->fabric.ranges; range++)
        o->handlers[range].kind = SIO_NO_HANDLER;
    o->posted_ranges = 0;
    o->drain_coalesced = NULL;
    o->coalesced = NULL;
    o->deliver = NULL;
    o->doorbell = -1;
}

static void in_child(void)
{
    for (struct sio_owner *o = kept; o; o = o->next_kept)
        disown(o);
    unlock();
}

int sio_owner_keep(struct sio_owner *o)
{
    int failed = madvise(o->fabric.base, o->fabric.size, MADV_DONTFORK) ? errno : 0;
    lock();
    if (!failed && !registered)
        failed = pthread_atfork(lock, unlock, in_child);
    if (!failed) {
        registered = 1;
        o->next_kept = kept;
        kept = o;
    }
    unlock();
    return -failed;
}

void sio_owner_let_go(struct sio_owner *o)
{
    lock();
    for (struct sio_owner **at = &kept; *at; at = &(*at)->next_kept)
        if (*at == o) {
            *at = o->next_kept;
            break;
        }
    unlock();
}
