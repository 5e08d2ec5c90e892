/*
 * writer.h - the one thread that writes: group commit, pipelined.
 *
 * HTTP workers submit jobs; the writer thread runs each in a savepoint of one shared transaction. The transaction stays
 * open, taking further jobs, as long as pipeline_depth earlier batches are still on their way to disk and replicas; then
 * it is sealed into one log record. A second thread fdatasyncs what was sealed. A batch's jobs are answered when its LSN
 * is committed, and also those that failed or changed nothing wait for what they saw to be committed.
 *
 * Errors: a transaction that is lost as a whole (disk full, too large, a trigger that rolls back) is run again job by job,
 * so that only the guilty one fails. When the quorum is gone jobs end with NO_QUORUM, which says whether they may still be
 * committed.
 */
#ifndef GRIZZLY_MASTER_WRITER_H
#define GRIZZLY_MASTER_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/query/answer.h"
#include "common/query/receipts.h"
#include "common/query/request.h"
#include "common/store/store.h"

struct writer;
struct timings;

enum write_outcome {
	WRITE_DONE,  /* answer holds everything but the trailer, lsn is committed */
	WRITE_ERROR, /* error says why */
	/* Not executed, for this node is no longer the master; or a request with a request_id whose outcome is open, as error
	 * then says: both may be sent to the new master. */
	WRITE_MOVED,
};

/* One write request; owned by whoever submits it, and by the writer until done() is called. */
struct write_job {
	struct write_job *next;              /* private */
	const struct query_request *request; /* borrowed; an empty one beside trusted_sql */
	const char *trace_id;    /* what it is called in logs; borrowed; NULL: nothing, it is the node's own */
	const char *trusted_sql; /* the node's own statements in its place; borrowed; NULL: a client's request */
	bool alone;              /* outside any transaction: QUERY_KIND_WRITE_ALONE */
	uint64_t deadline_ms;    /* clock_mono_ms() */
	uint64_t submitted_ms;   /* private */
	uint64_t submitted_us;   /* private */
	bool retried;            /* private: the batch it was in was lost, it runs by itself now */
	enum write_outcome outcome;
	struct buf answer;
	struct query_error error;
	uint64_t lsn;                        /* of the write; of a repeat: of the first time */
	uint64_t repeated_lsn;               /* private: not 0: a repeat of what was done there */
	void (*done)(struct write_job *job); /* any thread, no lock held; last access by the writer */
};

struct writer_options {
	struct store *store;
	const char *node_id;             /* borrowed */
	uint64_t commit_timeout_ms;      /* how long a write may wait for its quorum */
	unsigned queue_max;              /* jobs waiting */
	struct receipts_bounds receipts; /* how long answers are kept for repeats */
	unsigned pipeline_depth;         /* batches under way at a time; 0: one, and nothing is executed meanwhile */
	uint64_t first_lsn;              /* sealed before the writer existed (the term's first record), to be synced */
	void (*on_sealed)(void *arg);    /* writer thread: new records lie in the log */
	void (*on_durable)(void *arg, uint64_t lsn);      /* sync thread */
	void (*on_failed)(void *arg, const char *reason); /* the log cannot be written any more; sync thread */
	void *arg;
	struct timings *timings; /* counts what requests wait for; outlives it; NULL: nobody does */
};

struct writer_counters {
	uint64_t batches_total;
	uint64_t jobs_total;
	uint64_t queue_length;
};

/* Opens the store's writer connection. Jobs may be submitted at once; they run after writer_start(). */
enum db_err writer_create(struct writer **out, const struct writer_options *options, struct errmsg *em);
/* Starts both threads. On an error writer_stop() and writer_free() are still due. */
enum db_err writer_start(struct writer *w, struct errmsg *em);
/* Ends both threads; every job not executed yet is done as WRITE_MOVED, and so are those sealed but not committed that have
 * a request_id; the other sealed ones as WRITE_ERROR. */
void writer_stop(struct writer *w);
void writer_free(struct writer *w); /* after writer_stop(); NULL is fine */

/* DB_OK: done() will be called. DB_BUSY: the queue is full. DB_CLOSED: stopped. Any thread. */
enum db_err writer_submit(struct writer *w, struct write_job *job);
/* Everything up to lsn is committed: answers the jobs concerned. Any thread, one at a time. */
void writer_on_committed(struct writer *w, uint64_t lsn);
/* While draining, jobs are queued but not executed. What was executed is sealed. */
void writer_set_draining(struct writer *w, bool draining);
/* True while draining and nothing is executed but uncommitted. */
bool writer_is_drained(struct writer *w);

enum writer_knowledge {
	WRITER_UNKNOWN, /* nothing of that id is under way: what is committed is all there is */
	WRITER_PENDING, /* waits for its turn or its commit */
	WRITER_UNSURE, /* something was executed, answered as of unknown outcome, and is not settled yet: it may be that */
};
/* What is known of a write that is not committed. Ask before looking at what is: in between it may be committed. */
enum writer_knowledge writer_find(struct writer *w, const char *request_id);
/* How long its thread has stood still amid its work; 0: it has not. Any thread; asked again and again. */
uint64_t writer_stuck_ms(struct writer *w);
void writer_get_counters(struct writer *w, struct writer_counters *out);

#endif
