/* The calls of shardio/include/shardio.h: a port opened by descriptors, in a process that has no Python.
 *
 * What it checks and in which order is as in shardio/fabric: port.py, port_record.py, port_user.py. Part of shardio.c, which has
 * included the core's sources before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_MS 2000 /* how long a new user waits for the shard that still has the request of a dead one */
#define MAX_FDS (2 + SIO_MAX_SHARDS)
#define MAX_TEXT 2048

struct shardio_port {
    struct sio_port *record;
    struct sio_fabric fabric;
    int fd[MAX_FDS];           /* fabric, record, doorbells */
    uint32_t shard[MAX_FDS];   /* of each doorbell */
    int fds;
    uint32_t vcpu;
    dev_t device;              /* which record it is: st_dev and st_ino of its memfd */
    ino_t inode;
    struct shardio_port *next;
};

static struct shardio_port *opened; /* this process's */
static uint32_t opened_lock;

static void lock_opened(void)
{
    while (!sio_swap_if(&opened_lock, 0u, 1u))
        sio_yield();
}

static void unlock_opened(void) { sio_store_release(&opened_lock, 0u); }

static int held_here(const struct shardio_port *port)
{
    int held = 0;
    lock_opened();
    for (const struct shardio_port *other = opened; other; other = other->next)
        held |= other->device == port->device && other->inode == port->inode;
    unlock_opened();
    return held;
}

/* Maps all of a memfd that nobody can shrink; NULL with errno set. */
static void *map_sealed(int fd, uint64_t *size)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS), needed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (fstat(fd, &status))
        return NULL;
    /* A file of tmpfs has F_SEAL_SEAL alone, from the first: the kernel that made it has no memfd to seal. */
    if (status.st_size <= 0 || (seals >= 0 && seals != F_SEAL_SEAL && (seals & needed) != needed)) {
        errno = EPROTO;
        return NULL;
    }
    void *base = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *size = (uint64_t)status.st_size;
    return base == MAP_FAILED ? NULL : base;
}

static int map_fabric(struct shardio_port *port)
{
    uint64_t size;
    void *base = map_sealed(port->fd[0], &size);
    if (!base)
        return -errno;
    int status = sio_fabric_attach(&port->fabric, base, size);
    if (status == 0 && port->vcpu >= port->fabric.vcpus)
        status = -EINVAL;
    for (int i = 2; i < port->fds && status == 0; i++)
        if (port->shard[i] >= port->fabric.shards)
            status = -EINVAL;
    if (status) {
        munmap(base, size);
        port->fabric.base = NULL;
        return status == -EBADMSG ? -EPROTO : status;
    }
    return 0;
}

static int map_record(struct shardio_port *port)
{
    struct stat status;
    uint64_t size = 0;
    void *base = map_sealed(port->fd[1], &size);
    if (!base)
        return -errno;
    port->record = (struct sio_port *)base;
    if (size != sizeof *port->record || fstat(port->fd[1], &status)) {
        munmap(base, size);
        port->record = NULL;
        return size > sizeof *port->record / 2 ? -EPROTONOSUPPORT : -EPROTO;
    }
    port->device = status.st_dev;
    port->inode = status.st_ino;
    return port->record->client.vcpu == port->vcpu ? 0 : -EPROTO;
}

static void nap(void)
{
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

static int alive(uint32_t pid) { return kill((pid_t)pid, 0) == 0 || errno != ESRCH; }

/* Finishes what a dead user had in flight, unless somebody else is at it. */
static int settle_for(struct shardio_port *port, uint32_t dead)
{
    if (sio_port_exchange(port->record, dead, SIO_PORT_FINISHING) != dead)
        return 0;
    for (int ms = 0; !sio_client_finish(&port->record->client, &port->fabric); ms++) {
        if (ms >= SETTLE_MS) {
            sio_port_exchange(port->record, SIO_PORT_FINISHING, dead);
            return -ETIMEDOUT;
        }
        nap();
    }
    sio_port_exchange(port->record, SIO_PORT_FINISHING, SIO_PORT_FREE);
    return 0;
}

/* Makes this process the user. */
static int take_port(struct shardio_port *port)
{
    uint32_t me = (uint32_t)getpid(), holder;
    for (int ms = 0; (holder = sio_port_exchange(port->record, SIO_PORT_FREE, me)) != SIO_PORT_FREE;) {
        if (holder == SIO_PORT_FINISHING) {
            if (ms++ >= SETTLE_MS)
                return -ETIMEDOUT;
            nap();
            continue;
        }
        /* Where it is this process's number and nothing here has the port, a dead process had it. */
        if (holder == me ? held_here(port) : alive(holder))
            return -EBUSY;
        int status = settle_for(port, holder);
        if (status)
            return status;
    }
    return 0;
}

static int attach(struct shardio_port *port)
{
    int status = map_fabric(port);
    if (status == 0)
        status = map_record(port);
    if (status == 0 && port->fabric.membarrier && sio_membarrier_register())
        status = -EOPNOTSUPP; /* others would take this process for one that they can fence */
    if (status == 0)
        status = take_port(port);
    if (status)
        return status;
    sio_port_attach(port->record, &port->fabric);
    for (int i = 2; i < port->fds; i++)
        port->record->client.doorbell[port->shard[i]] = port->fd[i];
    lock_opened();
    port->next = opened;
    opened = port;
    unlock_opened();
    return 0;
}

/* A number that ends in `end`; NULL where there is none. */
static const char *number(const char *text, char end, long limit, long *value)
{
    char *after;
    if (*text < '0' || *text > '9')
        return NULL;
    errno = 0;
    *value = strtol(text, &after, 10);
    return errno == 0 && *value <= limit && *after == end ? after + (end != 0) : NULL;
}

/* "vcpu,fabric,record,shard=doorbell,...": Port.text. */
static int parse(struct shardio_port *port, const char *text)
{
    const char *at = text;
    long value = 0;
    if (!(at = number(at, ',', SIO_MAX_VCPUS - 1, &value)))
        return -EINVAL;
    port->vcpu = (uint32_t)value;
    while (*at) {
        const char *end = strchr(at, ',');
        if (port->fds == MAX_FDS)
            return -EINVAL;
        if (port->fds >= 2) {
            if (!(at = number(at, '=', SIO_MAX_SHARDS - 1, &value)))
                return -EINVAL;
            port->shard[port->fds] = (uint32_t)value;
        }
        if (!number(at, end ? ',' : 0, 0x7fffffff, &value))
            return -EINVAL;
        port->fd[port->fds++] = (int)value;
        at = end ? end + 1 : "";
        if (end && !*at)
            return -EINVAL;
    }
    return port->fds >= 2 ? 0 : -EINVAL;
}

static void unmap(struct shardio_port *port)
{
    if (port->record)
        munmap(port->record, sizeof *port->record);
    if (port->fabric.base)
        munmap(port->fabric.base, port->fabric.size);
}

/* `received`: the descriptors came with the text and are named in it by their place. */
static int open_text(struct shardio_port **made, const char *text, const int *received, int n)
{
    struct shardio_port *port = (struct shardio_port *)calloc(1, sizeof *port);
    *made = NULL;
    if (!port)
        return -ENOMEM;
    int status = parse(port, text);
    for (int i = 0; received && status == 0 && i < port->fds; i++) {
        if (port->fd[i] >= n || port->fds != n)
            status = -EPROTO;
        else
            port->fd[i] = received[port->fd[i]];
    }
    for (int i = 0; status == 0 && i < port->fds; i++)
        if (fcntl(port->fd[i], F_GETFD) < 0)
            status = -errno;
    if (status == 0)
        status = attach(port);
    if (status) {
        unmap(port);
        free(port);
        return status;
    }
    *made = port;
    return 0;
}

int shardio_open(struct shardio_port **port, const char *text) { return open_text(port, text, NULL, 0); }

int shardio_open_from(struct shardio_port **port, int socket)
{
    char text[MAX_TEXT];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message;
    int fds[MAX_FDS], n = 0;
    ssize_t length;

    *port = NULL;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    do
        length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (length < 0 && errno == EINTR);
    if (length <= 0)
        return length ? -errno : -EPIPE;
    text[length] = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), (size_t)n * sizeof(int));
        }
    int status = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EPROTO : open_text(port, text, fds, n);
    for (int i = 0; status && i < n; i++)
        close(fds[i]);
    return status;
}

int shardio_open_path(struct shardio_port **port, const char *path)
{
    struct sockaddr_un address;
    *port = NULL;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    int at = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (at < 0)
        return -errno;
    int status = connect(at, (const struct sockaddr *)&address, sizeof address) ? -errno : shardio_open_from(port, at);
    close(at);
    return status;
}

void shardio_close(struct shardio_port *port)
{
    if (!port)
        return;
    lock_opened();
    for (struct shardio_port **at = &opened; *at; at = &(*at)->next)
        if (*at == port) {
            *at = port->next;
            break;
        }
    unlock_opened();
    sio_port_exchange(port->record, (uint32_t)getpid(), SIO_PORT_FREE);
    unmap(port);
    for (int i = 0; i < port->fds; i++)
        close(port->fd[i]);
    free(port);
}

unsigned shardio_vcpu(const struct shardio_port *port) { return port->vcpu; }

int shardio_read(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, uint64_t *value)
{
    return sio_client_read(&port->record->client, space, address, size, value);
}

int shardio_write(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, uint64_t value)
{
    return sio_client_write(&port->record->client, space, address, size, value);
}

static int string(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, int write, uint8_t *bytes, size_t count)
{
    struct sio_client *client = &port->record->client;
    if (space > SIO_MMIO || size > 8 || !sio_width_mask[size] || count == 0 || count > SIO_SIDE_BYTES / size)
        return -EINVAL;
    int outcome = (int)sio_client_string(client, space, address, size, write, (uint32_t)count, bytes);
    sio_client_complete(client);
    return outcome;
}

int shardio_read_string(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, void *bytes, size_t count)
{
    return string(port, space, address, size, 0, (uint8_t *)bytes, count);
}

int shardio_write_string(struct shardio_port *port, unsigned space, uint64_t address, unsigned size, const void *bytes, size_t count)
{
    return string(port, space, address, size, 1, (uint8_t *)bytes, count); /* written, it is only read */
}

const char *shardio_error(int status)
{
    switch (status) {
    case SIO_ANSWERED: return "answered";
    case SIO_NOT_ANSWERED: return "nobody answers at this address, or the device refused";
    case SIO_ABORTED: return "the dispatcher is closed, or gives this vCPU up";
    case -EPROTO: return "the descriptors are not those of a port";
    case -EPROTONOSUPPORT: return "the dispatcher is of another version of shardio: build with its header and sources";
    case -EBUSY: return "the port is in use: give each process a port of its own";
    case -ETIMEDOUT: return "a process died with an access in flight, and its shard does not answer";
    case -EOPNOTSUPP: return "membarrier(2) is refused to this process: allow it, as whoever made the dispatcher is allowed it";
    case -EPIPE: return "the other end closed the socket without sending a port";
    default: return strerror(-status);
    }
}
