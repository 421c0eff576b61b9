/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding the programs that the launcher starts.
 *
 * The launcher has the emulator's name, so that it can stand in its place; the
 * search on PATH skips every name that leads to this very file.
 */
#include <sys/stat.h>
#include "programs.h"

#define EMULATOR "qemu-system-x86_64"
#define DAEMON "qemu-storage-daemon"
#define SELF "/proc/self/exe"

static bool is_self(const char *path)
{
    struct stat self, st;

    return stat(SELF, &self) == 0 && stat(path, &st) == 0 &&
           st.st_dev == self.st_dev && st.st_ino == self.st_ino;
}

static char *find_on_path(const char *name)
{
    g_auto(GStrv) dirs = g_strsplit(g_getenv("PATH") ?: "/usr/bin:/bin", ":",
                                    -1);

    for (int i = 0; dirs[i]; i++) {
        g_autofree char *path = g_build_filename(*dirs[i] ? dirs[i] : ".",
                                                 name, NULL);

        if (access(path, X_OK) == 0 &&
            g_file_test(path, G_FILE_TEST_IS_REGULAR) && !is_self(path)) {
            return g_steal_pointer(&path);
        }
    }
    return NULL;
}

/* From an environment variable: a path, or a name to look for. */
static char *resolve(const char *given)
{
    char *found = strchr(given, '/') ? NULL : find_on_path(given);

    return found ?: g_strdup(given);
}

char *find_emulator(Error **errp)
{
    const char *given = g_getenv("QEMU_SYSTEM_BINARY");
    char *path = given ? resolve(given) : find_on_path(EMULATOR);

    if (!path) {
        error_setg(errp, "There is no other " EMULATOR " on PATH; set "
                   "QEMU_SYSTEM_BINARY to the emulator");
    }
    return path;
}

char *find_daemon(Error **errp)
{
    const char *given = g_getenv("QEMU_STORAGE_DAEMON_BINARY");
    g_autofree char *self = g_file_read_link(SELF, NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *beside = dir ? g_build_filename(dir, DAEMON, NULL) : NULL;
    char *path;

    if (given) {
        return resolve(given);
    }
    if (beside && access(beside, X_OK) == 0) {
        return g_steal_pointer(&beside);
    }
    path = find_on_path(DAEMON);
    if (!path) {
        error_setg(errp, "Could not find " DAEMON "; set "
                   "QEMU_STORAGE_DAEMON_BINARY to it");
    }
    return path;
}

bool emulator_is_at_least(const char *emulator, int major, int minor)
{
    char *argv[] = { (char *)emulator, (char *)"-version", NULL };
    g_autofree char *text = NULL;
    const char *version;
    int found_major, found_minor;

    if (!g_spawn_sync(NULL, argv, NULL,
                      G_SPAWN_STDERR_TO_DEV_NULL | G_SPAWN_SEARCH_PATH, NULL,
                      NULL, &text, NULL, NULL, NULL)) {
        return false;
    }
    version = strstr(text, "version ");
    return version &&
           sscanf(version, "version %d.%d", &found_major, &found_minor) == 2 &&
           (found_major > major ||
            (found_major == major && found_minor >= minor));
}
