/* tokens.c - see tokens.h. The mutex covers looking at a file and loading it: the newest content wins. */
#include "node/tokens.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/config.h"
#include "common/base/log.h"

#define TOKENS_PATH "tokens"

/* A file as it was when it was loaded last. */
struct seen {
	struct timespec modified;
	ino_t inode; /* 0: there was none */
	off_t size;
};

struct tokens {
	struct auth *auth;
	const char *token_path;
	uint8_t cluster_id[16];
	pthread_mutex_t mutex; /* guards what follows */
	struct seen token, file;
	uint64_t failures_total;
};

/* Looked at before it is read: a change in between is seen the next time. True: it is another one than before. */
static bool has_changed(struct seen *seen, const char *path)
{
	struct seen now = {0};
	struct stat st;
	bool changed;

	if (stat(path, &st) == 0) {
		now.modified = st.st_mtim;
		now.inode = st.st_ino;
		now.size = st.st_size;
	}
	changed = now.inode != seen->inode || now.size != seen->size || now.modified.tv_sec != seen->modified.tv_sec ||
		  now.modified.tv_nsec != seen->modified.tv_nsec;
	*seen = now;
	return changed;
}

static enum db_err load_first(struct tokens *t, struct errmsg *em)
{
	char *token = NULL;
	enum db_err err = token_load(&token, t->token_path, em);

	if (err != DB_OK)
		return err;
	err = auth_set_first(t->auth, token, em);
	if (strcmp(token, AUTH_WELL_KNOWN) == 0)
		log_warn("%s holds the well-known token of the examples: it is accepted from loopback addresses only",
			 t->token_path);
	explicit_bzero(token, strlen(token));
	free(token);
	return err;
}

static enum db_err load_file(struct tokens *t, struct errmsg *em)
{
	struct token_file f;
	enum db_err err = token_file_load(&f, TOKENS_PATH, t->cluster_id, em);
	size_t count = f.count;

	if (err != DB_OK && err != DB_NOTFOUND)
		return err;
	auth_set_file(t->auth, &f); /* none: nobody but who has the first token */
	log_info("tokens: %zu besides the first are accepted", count);
	return DB_OK;
}

/* What is damaged is looked at again when it changes, what could not be read the next time. */
static void note_failure(struct tokens *t, struct seen *seen, enum db_err err, const struct errmsg *em)
{
	t->failures_total++;
	if (err != DB_CORRUPT && err != DB_INVALID && err != DB_NOTFOUND)
		seen->size = -1;
	log_error("tokens: %s; nothing has changed of what is accepted", em->text);
}

void tokens_look(struct tokens *t)
{
	struct errmsg em = {0};
	enum db_err err;

	pthread_mutex_lock(&t->mutex);
	err = has_changed(&t->token, t->token_path) ? load_first(t, &em) : DB_OK;
	if (err != DB_OK)
		note_failure(t, &t->token, err, &em);
	err = has_changed(&t->file, TOKENS_PATH) ? load_file(t, &em) : DB_OK;
	if (err != DB_OK)
		note_failure(t, &t->file, err, &em);
	pthread_mutex_unlock(&t->mutex);
}

enum db_err tokens_reload(struct tokens *t, uint64_t *checksum, struct errmsg *em)
{
	enum db_err err;

	pthread_mutex_lock(&t->mutex);
	has_changed(&t->file, TOKENS_PATH); /* notes what is about to be loaded */
	err = load_file(t, em);
	if (err != DB_OK)
		note_failure(t, &t->file, err, em);
	*checksum = auth_file_checksum(t->auth);
	pthread_mutex_unlock(&t->mutex);
	return err;
}

enum db_err tokens_create(struct tokens **out, const uint8_t cluster_id[16], const char *token_path, struct errmsg *em)
{
	struct tokens *t = calloc(1, sizeof(*t));
	enum db_err err;

	*out = NULL;
	if (t == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	pthread_mutex_init(&t->mutex, NULL);
	t->token_path = token_path;
	memcpy(t->cluster_id, cluster_id, sizeof(t->cluster_id));
	err = auth_create(&t->auth, cluster_id, em);
	if (err == DB_OK) {
		has_changed(&t->token, token_path);
		err = load_first(t, em);
	}
	if (err != DB_OK) {
		tokens_free(t);
		return err;
	}
	tokens_look(t);
	*out = t;
	return DB_OK;
}

void tokens_free(struct tokens *t)
{
	if (t == NULL)
		return;
	auth_free(t->auth);
	pthread_mutex_destroy(&t->mutex);
	free(t);
}

struct auth *tokens_auth(struct tokens *t)
{
	return t->auth;
}

void tokens_get_counters(struct tokens *t, struct tokens_counters *out)
{
	out->tokens = auth_token_count(t->auth);
	pthread_mutex_lock(&t->mutex);
	out->failures_total = t->failures_total;
	pthread_mutex_unlock(&t->mutex);
}
