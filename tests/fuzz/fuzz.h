/* Every tests/fuzz/fuzz_*.c defines this one function; `make fuzz` builds it with libFuzzer, or
 * with replay.c where clang is missing. It aborts when a promise is broken. Seeds:
 * tests/fuzz/corpus/<name>/, and files named on the command line. */
#ifndef TG_TESTS_FUZZ_H
#define TG_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
