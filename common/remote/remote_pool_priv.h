/*
 * remote_pool_priv.h - what remote_pool.c (the pool's thread: who is asked when) and remote_fetch.c (a fetch: its copy of
 * the request, its buffer, its reader) share.
 *
 * A fetch is referred to by its reader, by the pool from start to end, and by the inbox while it is in it; the last one
 * frees it. Each member says who may touch it.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_POOL_PRIV_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_POOL_PRIV_H

#include <event2/event.h>
#include <pthread.h>
#include <sys/queue.h>

#include "common/base/buf.h"
#include "common/remote/http_client.h"
#include "common/remote/remote_pool.h"

/* What a reader asks of the pool; or-ed when several wait. */
enum remote_post { REMOTE_POST_START = 1, REMOTE_POST_RESUME = 2, REMOTE_POST_CANCEL = 4 };

enum fetch_place { FETCH_NEW, FETCH_QUEUED, FETCH_RUNNING, FETCH_ENDED };

struct remote_address;

struct remote_fetch {
	struct remote_pool *pool;
	atomic_uint refs;

	/* The request; not changed after the start. */
	char *address, *path, *token; /* token NULL: none */
	char **headers;               /* NULL-terminated */
	void *body;                   /* the pool's thread frees it when it has been handed on */
	size_t body_len;
	bool is_get, is_read, at_once, member;
	unsigned level;
	uint64_t deadline_ms;
	void (*notify)(void *arg);
	void *notify_arg;

	/* Under the pool's mutex. */
	STAILQ_ENTRY(remote_fetch) in_inbox;
	unsigned posted; /* enum remote_post or-ed; not 0: it is in the inbox */

	/* The pool's thread. */
	enum fetch_place place;
	struct remote_address *at;        /* FETCH_QUEUED, FETCH_RUNNING */
	TAILQ_ENTRY(remote_fetch) listed; /* in its address's queue, or among those under way */
	STAILQ_ENTRY(remote_fetch) in_dirty;
	bool is_dirty;            /* the reader is to be told */
	struct http_call *call;   /* FETCH_RUNNING */
	struct event *timer;      /* FETCH_QUEUED: its deadline */
	uint64_t patient_till_ms; /* an address that fails is waited for so long; 0: it has not waited yet */
	bool is_probe;            /* it went to look whether its address still fails */
	bool head_told;
	bool out_of_memory; /* why it was cancelled */

	/* Under mutex: from the pool's thread to the reader. */
	pthread_mutex_t mutex;
	pthread_cond_t changed; /* something came, or notify has returned */
	bool head_known, ended;
	int status;
	char *content_type; /* not changed once head_known */
	struct buf in;      /* what came and the reader has not taken */
	bool paused;        /* in is full: the connection waits for REMOTE_POST_RESUME */
	enum db_err err;    /* once ended */
	struct errmsg why;
	bool blocks;    /* the reader waits for changed */
	bool wants;     /* the reader got DB_BUSY and is to be notified */
	bool notifying; /* in notify */

	/* The reader's. */
	struct buf out; /* taken from in as a whole */
	size_t out_at;
};

/* ---- remote_fetch.c, for the pool's thread */

/* The reader is not told yet: remote_fetch_flush(). DB_NOMEM. */
enum db_err remote_fetch_on_head(struct remote_fetch *f, int status, const char *content_type);
/* DB_BUSY: the buffer is full, nothing was taken. DB_NOMEM. */
enum db_err remote_fetch_on_body(struct remote_fetch *f, const void *bytes, size_t len);
void remote_fetch_on_end(struct remote_fetch *f, enum db_err err, const struct errmsg *em);
void remote_fetch_flush(struct remote_fetch *f); /* tells the reader that something came */
void remote_fetch_forget_body(struct remote_fetch *f);
void remote_fetch_unref(struct remote_fetch *f);

/* ---- remote_pool.c, for any thread */

/* Asks it of the pool's thread. START: DB_CLOSED when the pool stops, and nothing was asked; otherwise DB_OK. */
enum db_err remote_pool_post(struct remote_pool *p, struct remote_fetch *f, enum remote_post what);
void remote_pool_on_fetch(struct remote_pool *p, bool created); /* counts those that exist */

#endif
