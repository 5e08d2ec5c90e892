/* spill.c - see spill.h. */
#include "common/base/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum db_err spill_open(struct spill *s, const char *dir, size_t size, struct errmsg *em)
{
	enum db_err err = DB_OK;
	void *at;
	int fd, rc;

	s->data = NULL;
	s->size = 0;
	fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create a scratch file in \"%s\"", dir);
	rc = posix_fallocate(fd, 0, (off_t)size); /* a full disk shows here and not as SIGBUS later */
	if (rc != 0) {
		err = errmsg_errno(em, rc, "cannot allocate %zu bytes of scratch space in \"%s\"", size, dir);
		goto close_file;
	}
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED) {
		err = errmsg_errno(em, errno, "cannot map a scratch file");
		goto close_file;
	}
	s->data = at;
	s->size = size;
close_file:
	close(fd);
	return err;
}

void spill_close(struct spill *s)
{
	if (s->data != NULL)
		munmap(s->data, s->size);
	s->data = NULL;
	s->size = 0;
}
