/* fuzz.c - see fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"

static char scratch[FUZZ_PATH_MAX]; /* empty: none yet */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_init("fuzz", (enum log_level)(LOG_LEVEL_ERROR + 1)); /* hostile input is worth a line each time: too many */
	return 0;
}

void fuzz_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
	abort();
}

const uint8_t *in_bytes(struct fuzz_in *in, size_t len, size_t *got)
{
	const uint8_t *p = in->p;

	*got = len < in->left ? len : in->left;
	in->p += *got;
	in->left -= *got;
	return p;
}

uint64_t in_u64(struct fuzz_in *in)
{
	uint64_t v = 0;
	size_t got;
	const uint8_t *p = in_bytes(in, 8, &got);

	while (got > 0)
		v = v << 8 | p[--got];
	return v;
}

uint32_t in_u32(struct fuzz_in *in)
{
	uint32_t low = in_u16(in);

	return low | (uint32_t)in_u16(in) << 16;
}

uint16_t in_u16(struct fuzz_in *in)
{
	uint8_t low = in_u8(in);

	return (uint16_t)(low | in_u8(in) << 8);
}

uint8_t in_u8(struct fuzz_in *in)
{
	size_t got;
	const uint8_t *p = in_bytes(in, 1, &got);

	return got == 1 ? *p : 0;
}

uint64_t in_number(struct fuzz_in *in, uint64_t near)
{
	uint8_t how = in_u8(in);

	switch (how & 7) {
	case 0:
	case 1:
	case 2:
		return near;
	case 3:
		return near + (how >> 3);
	case 4:
		return near - (how >> 3);
	case 5:
		return how >> 3;
	case 6:
		return UINT64_MAX - (how >> 3);
	default:
		return in_u64(in);
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void fuzz_rmtree(const char *path)
{
	if (access(path, F_OK) == 0)
		FUZZ_CHECK(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static void remove_scratch(void)
{
	fuzz_rmtree(scratch);
}

const char *fuzz_scratch(void)
{
	const char *tmp = getenv("TMPDIR");

	if (scratch[0] != '\0')
		return scratch;
	snprintf(scratch, sizeof(scratch), "%s/grizzly-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
	FUZZ_CHECK(mkdtemp(scratch) != NULL);
	FUZZ_CHECK(atexit(remove_scratch) == 0);
	return scratch;
}

void fuzz_path(char out[FUZZ_PATH_MAX], const char *name)
{
	int len = snprintf(out, FUZZ_PATH_MAX, "%s/%s", fuzz_scratch(), name);

	FUZZ_CHECK(len > 0 && len < FUZZ_PATH_MAX);
}

void fuzz_fresh_dir(const char *path)
{
	fuzz_rmtree(path);
	FUZZ_CHECK(mkdir(path, 0700) == 0);
}

void fuzz_write_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t at = 0;
	ssize_t n;

	FUZZ_CHECK(fd >= 0);
	for (; at < len; at += (size_t)n) {
		n = write(fd, (const uint8_t *)bytes + at, len - at);
		FUZZ_CHECK(n > 0);
	}
	FUZZ_CHECK(close(fd) == 0);
}

uint8_t *fuzz_read_file(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *bytes;
	size_t at = 0;
	ssize_t n;

	FUZZ_CHECK(fd >= 0 && fstat(fd, &st) == 0);
	*len = (size_t)st.st_size;
	bytes = malloc(*len > 0 ? *len : 1);
	FUZZ_CHECK(bytes != NULL);
	for (; at < *len; at += (size_t)n) {
		n = read(fd, bytes + at, *len - at);
		FUZZ_CHECK(n > 0);
	}
	FUZZ_CHECK(close(fd) == 0);
	return bytes;
}
