/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * run-once COMMAND [ARGUMENT...]: runs a command and prints, as JSON, what it
 * took: seconds of time, seconds of processors, KiB of memory at most.
 *
 * The memory is why this is a program.  The kernel counts to a process what it
 * was before it became the command, and a child of an interpreter was that
 * interpreter: tens of MiB, more than the tools that are measured.  A child of
 * this is less than one.
 *
 * The command's output goes to our standard error; exits as the command does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double seconds(const struct timeval *tv)
{
    return tv->tv_sec + tv->tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    double start = now(), wall;
    struct rusage usage;
    pid_t pid = argc > 1 ? fork() : -1;
    int status;

    if (pid == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execv(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        perror("run-once");
        return 127;
    }
    wall = now() - start;
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"rss\": %ld}\n", wall,
           seconds(&usage.ru_utime) + seconds(&usage.ru_stime),
           usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
