/* The vCPU worker as a program of its own: it links only where the worker reaches no function of libc.
 *
 * A worker shares the VMM's address space and has no thread-local storage of its own, so what it runs may call nothing that
 * others wrote, memset and memcpy of the compiler's choice included. The linker starts at run_worker and drops what that does
 * not reach (--gc-sections); a function that is left and not here is an undefined symbol, and the build fails with its name.
 */
#include "worker.c"

__attribute__((used, noreturn)) void reached(struct sio_vcpu *vcpu);
void reached(struct sio_vcpu *vcpu) { run_worker(vcpu); }
