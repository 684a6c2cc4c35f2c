/* A vCPU loop in C, or C++: examples/native_vcpu builds it and gives it a port. It adds to a counter, posts to a log, and reads
 * both back.
 *
 *     vcpu_loop PORT [TIMES]     PORT: what Port.text says, or the path of a socket that a port is sent on
 */
#include <shardio.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNTER UINT64_C(0xd0000000) /* each write is added */
#define LOG UINT64_C(0xd0001000)     /* posted: nobody waits for a write */

static int failed(const char *what, int status)
{
    fprintf(stderr, "%s: %s\n", what, shardio_error(status));
    return 1;
}

int main(int argc, char **argv)
{
    struct shardio_port *port;
    uint64_t sum = 0, logged = 0;
    long times = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
    if (argc < 2) {
        fprintf(stderr, "usage: vcpu_loop PORT [TIMES]\n");
        return 2;
    }
    int status = strchr(argv[1], '/') ? shardio_open_path(&port, argv[1]) : shardio_open(&port, argv[1]);
    if (status)
        return failed("cannot open the port", status);
    for (long i = 0; i < times && status == SHARDIO_ANSWERED; i++) {
        status = shardio_write(port, SHARDIO_MMIO, COUNTER, 4, 1);
        if (status == SHARDIO_ANSWERED)
            status = shardio_write(port, SHARDIO_MMIO, LOG, 4, (uint64_t)i); /* returns at once */
    }
    if (status == SHARDIO_ANSWERED)
        status = shardio_read(port, SHARDIO_MMIO, COUNTER, 4, &sum);
    if (status == SHARDIO_ANSWERED)
        status = shardio_read(port, SHARDIO_MMIO, LOG, 4, &logged); /* after all that was posted */
    if (status == SHARDIO_ANSWERED)
        printf("vCPU %u: counter %" PRIu64 ", log %" PRIu64 "\n", shardio_vcpu(port), sum, logged);
    shardio_close(port);
    return status == SHARDIO_ANSWERED ? 0 : failed("an access", status);
}
