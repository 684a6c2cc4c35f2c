/* Forks a sibling.
 *
 * Facts. A process is reaped by its parent, and dies with the thread that is its parent (PR_SET_PDEATHSIG). With CLONE_PARENT the
 * parent of a new process is its creator's. fork() has no such flag. The C library keeps the thread's id at the address that the
 * kernel clears when the thread ends, which PR_GET_TID_ADDRESS tells; fork() has the kernel store the new one there.
 * Consequence. The system call is made here, with the same flags as fork() and one more, between Python's own preparations.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "sibling.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long fork_sibling(int *tid)
{
    unsigned long flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
#if defined(__x86_64__)
    return syscall(SYS_clone, flags, NULL, NULL, tid, 0ul);
#else
    return syscall(SYS_clone, flags, NULL, NULL, 0ul, tid);
#endif
}

int sio_fork_sibling(void)
{
    int *tid = NULL;
    if (prctl(PR_GET_TID_ADDRESS, &tid, 0, 0, 0) || !tid || *tid != (int)syscall(SYS_gettid))
        return -ENOSYS;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyOS_BeforeFork();
    long pid = fork_sibling(tid);
    int failed = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    PyGILState_Release(gil);
    return pid < 0 ? -failed : (int)pid;
}
