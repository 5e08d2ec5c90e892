/* no_master.c - see no_master.h. */
#include "node/no_master.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define REASON_PATH "run/no-master"
#define REASON_MAX  1024

void no_master_reason(char *out, size_t size, const char *otherwise)
{
	int fd = open(REASON_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0, i;

	if (fd >= 0) {
		n = read(fd, out, size - 1);
		close(fd);
	}
	if (n <= 0) {
		snprintf(out, size, "%s", otherwise);
		return;
	}
	for (i = 0; i < n; i++)
		if ((unsigned char)out[i] < 0x20)
			out[i] = ' ';
	out[n] = '\0';
}

void no_master_message(char *out, size_t size)
{
	char reason[REASON_MAX];

	no_master_reason(reason, sizeof(reason), "");
	snprintf(out, size, "there is no master at the moment; the request was not executed%s%s",
		 reason[0] == '\0' ? "" : ": ", reason);
}
