/* managed.c - see managed.h. */
#include "supervisor/managed.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "supervisor/adopt.h"

void managed_release(struct managed *m)
{
	if (m->exit_event != NULL)
		event_free(m->exit_event);
	m->exit_event = NULL;
	process_close(&m->process);
	m->answered = false;
}

void managed_fini(struct managed *m)
{
	managed_release(m);
	link_req_free(m->link);
	m->link = NULL;
}

enum db_err managed_attach(struct managed *m, struct errmsg *em)
{
	char path[64];
	char url[LINK_URL_MAX];
	enum db_err err;

	m->exit_event = event_new(m->base, m->process.pidfd, EV_READ | EV_PERSIST, m->on_exit, m);
	if (m->exit_event == NULL || event_add(m->exit_event, NULL) != 0)
		return errmsg_set(em, DB_NOMEM, "cannot watch the process of node%u", m->index + 1);
	/* The link of the process before is given up only now, for that may take a moment. */
	link_req_free(m->link);
	m->link = NULL;
	snprintf(path, sizeof(path), "run/node%u.ctl", m->index + 1);
	err = link_ipc_url(url, path, em);
	return err == DB_OK ? link_req_create(&m->link, url, em) : err;
}

/* A process nobody knows, yet with the node's socket: left by a supervisor that died between a start and its record. */
static enum db_err expel_stranger(struct managed *m, struct errmsg *em)
{
	struct process stranger;
	enum db_err err;

	if (!adopt_stranger(m->index, &stranger))
		return DB_OK;
	err =
	    errmsg_set(em, DB_BUSY, "process %d, which was not ours, had its socket and was killed", (int)stranger.pid);
	if (process_signal(&stranger, SIGKILL, em) != DB_OK)
		err = em->err;
	process_close(&stranger);
	return err;
}

/* What a killed node has left. The others take these files for its word that it listens there (common/wire/mesh.h), and the
 * program that is started next may be of a version that does not. One that cannot be removed is said by the node. */
static void remove_link_files(unsigned node)
{
	char pattern[64];
	glob_t found = {0};
	size_t i;

	snprintf(pattern, sizeof(pattern), "run/node%u.{replication,acks,tls.*}", node);
	if (glob(pattern, GLOB_BRACE, NULL, &found) == 0)
		for (i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
	globfree(&found);
}

enum db_err managed_start(struct managed *m, const struct managed_start *start, struct errmsg *em)
{
	char id[16];
	char term[24];
	char log_path[64];
	char ports[32];
	char members[16];
	struct launch launch = {.program = start->program,
				.args = {start->as_master ? "grizzly-master" : "grizzly-replica", "--data-dir",
					 start->data_dir, "--id", id, "--ports", ports, "--members", members,
					 start->as_master ? "--term" : NULL, start->as_master ? term : NULL},
				.log_path = log_path,
				.listen_fd = start->listen_fd};
	enum db_err err;

	snprintf(id, sizeof(id), "node%u", m->index + 1);
	snprintf(term, sizeof(term), "%" PRIu64, start->term);
	snprintf(log_path, sizeof(log_path), "log/%s.log", id);
	snprintf(ports, sizeof(ports), "%u,%u,%u", start->entry->http_port, start->entry->replication_port,
		 start->entry->ack_port);
	snprintf(members, sizeof(members), "%u", start->members);
	err = expel_stranger(m, em);
	if (err == DB_OK) {
		remove_link_files(m->index + 1);
		err = launcher_spawn(&launch, &m->process, em);
	}
	if (err != DB_OK)
		return err;
	m->started_us = clock_wall_us();
	err = managed_attach(m, em);
	if (err != DB_OK) {
		struct errmsg ignored = {0};

		/* Not watched, it must not live. A kill that fails leaves a stranger, which the next start expels. */
		if (process_signal(&m->process, SIGKILL, &ignored) != DB_OK)
			log_error("%s", ignored.text);
		managed_release(m);
	}
	return err;
}

const char *managed_last_words(struct managed *m)
{
	char path[64];
	ssize_t n, i;
	int fd;

	snprintf(path, sizeof(path), "run/node%u.why", m->index + 1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	n = read(fd, m->said, sizeof(m->said) - 1);
	close(fd);
	if (unlink(path) != 0)
		log_warn("\"%s\" cannot be removed: %s", path, strerror(errno));
	if (n <= 0)
		return NULL;
	m->said[n] = '\0';
	for (i = 0; i < n; i++) /* it ends up in logs */
		if ((unsigned char)m->said[i] < 0x20 || m->said[i] == 0x7f)
			m->said[i] = '?';
	return m->said;
}

bool managed_probe(struct managed *m)
{
	struct progress_sample before = m->sample;

	progress_take(&m->sample, m->process.pid);
	return progress_made(&before, &m->sample);
}
