/* refuse CALL=ERROR... -- PROGRAM ARGUMENT...: executes a program in which, and in all that it starts, each of these system calls fails
 * with this error (EPERM, ENOSYS, EACCES, or a number). A call is a name or a number.
 *
 * Compiled with -DPRELOAD -shared, it does the same from within a program, at its start, for what the variable REFUSE says: for the calls
 * that it takes to execute the program. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct { const char *name; long number; } CALLS[] = {
#define CALL(name) { #name, SYS_##name }
#ifdef SYS_access
    CALL(access), CALL(arch_prctl), CALL(dup2), CALL(epoll_wait), CALL(fork), CALL(vfork), CALL(poll), CALL(readlink),
#endif
    CALL(brk), CALL(clone), CALL(clone3), CALL(close), CALL(dup3), CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_pwait),
    CALL(eventfd2), CALL(execve), CALL(exit_group), CALL(fcntl), CALL(ftruncate), CALL(futex), CALL(getcwd), CALL(getdents64),
    CALL(getpid), CALL(getpgid), CALL(getpriority), CALL(getrandom), CALL(getsockopt), CALL(gettid), CALL(ioctl), CALL(kill),
    CALL(lseek), CALL(madvise), CALL(memfd_create), CALL(mmap), CALL(mprotect), CALL(munmap), CALL(newfstatat), CALL(openat),
    CALL(pidfd_open), CALL(pidfd_send_signal), CALL(pipe2), CALL(ppoll), CALL(prctl), CALL(pread64), CALL(prlimit64),
    CALL(process_vm_readv), CALL(read), CALL(readlinkat), CALL(recvfrom), CALL(recvmsg), CALL(rseq), CALL(rt_sigaction),
    CALL(rt_sigprocmask), CALL(sched_getaffinity), CALL(sched_setaffinity), CALL(sched_yield), CALL(sendmsg), CALL(sendto),
    CALL(set_robust_list), CALL(set_tid_address), CALL(setpgid), CALL(setpriority), CALL(shutdown), CALL(sigaltstack),
    CALL(socketpair), CALL(statx), CALL(tgkill), CALL(timerfd_create), CALL(timerfd_settime), CALL(waitid), CALL(write),
    CALL(writev), CALL(clock_nanosleep), CALL(close_range), CALL(wait4),
};

static void fail(const char *words, const char *which) {
    fprintf(stderr, "refuse: %s: %s\n", words, which);
    exit(125);
}

static long call_number(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
        if (strlen(CALLS[i].name) == len && !strncmp(CALLS[i].name, name, len))
            return CALLS[i].number;
    char *end;
    long number = strtol(name, &end, 10);
    if (end != name + len)
        fail("no such call", name);
    return number;
}

static int error_number(const char *name) {
    if (!strcmp(name, "EPERM"))
        return EPERM;
    if (!strcmp(name, "ENOSYS"))
        return ENOSYS;
    if (!strcmp(name, "EACCES"))
        return EACCES;
    return atoi(name);
}

static void refuse(const char *what) {
    const char *sign = strchr(what, '=');
    if (!sign)
        fail("not CALL=ERROR", what);
    long number = call_number(what, (size_t)(sign - what));
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error_number(sign + 1)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { sizeof program / sizeof *program, program };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
        fail("the filter is refused", strerror(errno));
}

#ifdef PRELOAD
__attribute__((constructor)) static void at_start(void) {
    const char *what = getenv("REFUSE");
    if (what)
        refuse(what);
}
#else
int main(int argc, char **argv) {
    int at = 1;
    while (at < argc && strcmp(argv[at], "--"))
        at++;
    if (at + 1 >= argc)
        fail("no program is given", "refuse CALL=ERROR... -- PROGRAM ARGUMENT...");
    for (int i = 1; i < at; i++)
        refuse(argv[i]);
    execvp(argv[at + 1], argv + at + 1);
    fail(strerror(errno), argv[at + 1]);
}
#endif
