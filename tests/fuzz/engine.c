/*
 * What a fuzzing engine calls: libFuzzer's interface, which AFL++ drives as
 * well.  FUZZ_TARGET is one of the functions in fuzz.h.
 *
 * Half of the mutations are the engine's own, half know the format.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "qemu/osdep.h"
#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
                                 const uint8_t *data2, size_t size2,
                                 uint8_t *out, size_t max_size, unsigned seed);
/* The engine's; AFL++ has none. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
    __attribute__((weak));

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= FUZZ_MAX_INPUT) {
        fuzz_memory_begin();
        FUZZ_TARGET(data, size);
        fuzz_memory_end();
    }
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                               unsigned seed)
{
    if (LLVMFuzzerMutate && seed % 2) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    return fuzz_mutate(data, size, max_size, seed / 2);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1,
                                 const uint8_t *data2, size_t size2,
                                 uint8_t *out, size_t max_size, unsigned seed)
{
    size_t size = MIN(size1, max_size);

    memcpy(out, data1, size);
    return fuzz_mix(out, size, data2, size2, seed);
}
