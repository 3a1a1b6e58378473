/*
 * refuse COMMAND [ARG...]: runs COMMAND where the system calls that are younger than Linux 3.10
 * fail with ENOSYS, as they do on such a kernel. The tests compile it for themselves.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSE(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##call, 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS)

int main(int argc, char **argv)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        /* renameat2 (3.15) stays: riscv64, which is younger than it, has no other way to rename. */
        REFUSE(getrandom),         /* 3.17 */
        REFUSE(memfd_create),      /* 3.17 */
        REFUSE(execveat),          /* 3.19 */
        REFUSE(copy_file_range),   /* 4.5 */
        REFUSE(statx),             /* 4.11 */
        REFUSE(rseq),              /* 4.18 */
        REFUSE(pidfd_send_signal), /* 5.1 */
        REFUSE(pidfd_open),        /* 5.3 */
        REFUSE(clone3),            /* 5.3 */
        REFUSE(openat2),           /* 5.6 */
        REFUSE(faccessat2),        /* 5.8 */
        REFUSE(close_range),       /* 5.9 */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };

    if (argc < 2)
        return 2;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("refuse: seccomp");
        return 69;
    }
    /* Whoever runs this wants to know that it works. */
    if (syscall(__NR_pidfd_open, getpid(), 0) != -1 || errno != ENOSYS) {
        fputs("refuse: pidfd_open is still answered\n", stderr);
        return 69;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
