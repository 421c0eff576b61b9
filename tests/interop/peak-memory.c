/*
 * peak-memory COMMAND ARGUMENT...: run it, and say on standard output how many
 * KiB it had resident at most; its own standard output goes nowhere.
 *
 * Whoever starts a program passes on a peak of his own, so a large one (an
 * interpreter) cannot ask for that of a small one.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int run(char **argv)
{
    int null = open("/dev/null", O_WRONLY);

    if (null >= 0 && dup2(null, STDOUT_FILENO) >= 0) {
        execvp(argv[0], argv);
    }
    perror(argv[0]);
    return 127;
}

int main(int argc, char **argv)
{
    struct rusage usage;
    int status;
    pid_t pid = argc < 2 ? -1 : fork();

    if (pid == 0) {
        _exit(run(argv + 1));
    }
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
        fprintf(stderr, "peak-memory: cannot run a command\n");
        return EXIT_FAILURE;
    }
    printf("%ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
