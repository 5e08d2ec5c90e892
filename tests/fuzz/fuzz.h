/*
 * fuzz.h - what every fuzz target shares: reading choices out of the input, checks, and a scratch directory.
 *
 * A target is one file, fuzz_<name>.c, that defines LLVMFuzzerTestOneInput(). It is linked twice: with libFuzzer
 * (configure --enable-fuzzer, scripts/fuzz.sh) to search, and with replay.c to run the inputs kept in corpus/<name> and
 * regressions/<name> again, which needs no clang and is a test like any other. One thread; a failed check aborts, which is
 * a finding. Inputs are read with in_*(): an exhausted input yields zeros, so that every input means something.
 */
#ifndef GRIZZLY_TESTS_FUZZ_FUZZ_H
#define GRIZZLY_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_PATH_MAX 512

/* libFuzzer's interface. fuzz.c has the second: it silences the log. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

void fuzz_fail(const char *what, const char *file, int line) __attribute__((noreturn));
#define FUZZ_CHECK(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __FILE__, __LINE__))

struct fuzz_in {
	const uint8_t *p;
	size_t left;
};

uint8_t in_u8(struct fuzz_in *in);
uint16_t in_u16(struct fuzz_in *in);
uint32_t in_u32(struct fuzz_in *in);
uint64_t in_u64(struct fuzz_in *in);
/* A number as a hostile peer would choose it: near `near`, small, near the top of 64 bits, or any. */
uint64_t in_number(struct fuzz_in *in, uint64_t near);
/* The next len bytes, fewer when fewer are left (*got says how many). */
const uint8_t *in_bytes(struct fuzz_in *in, size_t len, size_t *got);

/* A directory of our own below $TMPDIR or /tmp, made at the first call, removed with everything in it at exit. */
const char *fuzz_scratch(void);
/* A path below the scratch directory; the buffer is the caller's. */
void fuzz_path(char out[FUZZ_PATH_MAX], const char *name);
/* Creates or replaces a file. */
void fuzz_write_file(const char *path, const void *bytes, size_t len);
/* Reads a whole file; the caller frees it. */
uint8_t *fuzz_read_file(const char *path, size_t *len);
/* Removes a directory and all below it; nothing when there is none. */
void fuzz_rmtree(const char *path);
/* An empty directory at path, whatever was there. */
void fuzz_fresh_dir(const char *path);

#endif
