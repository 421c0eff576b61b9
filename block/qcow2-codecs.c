/*
 * qcow2: the libraries of compressed clusters are loaded.
 *
 * By the name that a program linked to them would ask for (SONAME_*, which the
 * build finds out), so what is loaded has the interface of the headers.  They
 * stay until the program ends.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include <dlfcn.h>
#include <pthread.h>
#include "qemu/error.h"
#include "qcow2-codecs.h"

/* The functions called @names go to @fns; false after a message. */
static bool G_GNUC_UNUSED load(const char *soname, const char *const *names,
                               void **fns, size_t n)
{
    void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

    if (!lib) {
        error_report("qcow2: cannot load a library: %s", dlerror());
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        fns[i] = dlsym(lib, names[i]);
        if (!fns[i]) {
            error_report("qcow2: %s lacks a function: %s", soname, dlerror());
            return false;
        }
    }
    return true;
}

#define FUNCTION_NAME(name) #name,

/* What the header promises for one library. */
#define LIBRARY(Type, name, SONAME, FUNCTIONS)                               \
static Type name##_functions;                                                \
static bool name##_is_there;                                                 \
                                                                             \
static void name##_load(void)                                                \
{                                                                            \
    static const char *const names[] = { FUNCTIONS(FUNCTION_NAME) };         \
                                                                             \
    G_STATIC_ASSERT(sizeof(Type) == sizeof(names));                          \
    name##_is_there = load(SONAME, names, (void **)&name##_functions,        \
                           ARRAY_SIZE(names));                               \
}                                                                            \
                                                                             \
const Type *name(void)                                                       \
{                                                                            \
    static pthread_once_t once = PTHREAD_ONCE_INIT;                          \
                                                                             \
    pthread_once(&once, name##_load);                                        \
    return name##_is_there ? &name##_functions : NULL;                       \
}

#ifdef CONFIG_LIBDEFLATE
LIBRARY(LibDeflate, qcow2_libdeflate, SONAME_LIBDEFLATE, LIBDEFLATE_FUNCTIONS)
#endif
#ifdef CONFIG_LIBISAL
LIBRARY(LibIsal, qcow2_libisal, SONAME_LIBISAL, LIBISAL_FUNCTIONS)
#endif
#ifdef CONFIG_LIBZSTD
LIBRARY(LibZstd, qcow2_libzstd, SONAME_LIBZSTD, LIBZSTD_FUNCTIONS)
#endif
