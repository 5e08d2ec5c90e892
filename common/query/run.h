/*
 * run.h - runs all statements of a request and writes the answer's body; what reads and writes have in common.
 *
 * The caller opens and closes the transaction around it, arms the guard, and writes the end of the answer. A run lives on
 * the stack of one query_read() or query_write().
 */
#ifndef GRIZZLY_COMMON_QUERY_RUN_H
#define GRIZZLY_COMMON_QUERY_RUN_H

#include "common/query/conn.h"

struct run {
	struct query_conn *c;
	const struct query_request *request;
	struct query_error *error;
	struct buf *out;
	const struct query_sink *sink; /* NULL: the whole answer stays in out */
	size_t bytes_max;              /* of the answer without a sink; 0: no limit */
	uint64_t result_rows_max;      /* of all statements; 0: no limit */
	uint64_t result_bytes_max;     /* flushed or not; 0: no limit */
	bool reading;                  /* statements that write are refused */
	bool typed;                    /* in the form of typed_rows.h; while reading only */
	bool wrote;                    /* some statement was one that writes */
	bool alone_allowed;            /* outside a transaction: VACUUM may run, if it is the only statement */

	size_t start; /* out->len before the answer; 0 once flushed */
	bool flushed;
	uint64_t flushed_bytes;
	uint64_t rows; /* of all statements */
	bool results;  /* the answer has `results`, one of each statement */
	bool several;  /* errors say which statement */
	size_t index;  /* of the current statement */
	/* Where the answer could be broken off with valid JSON, and what is open there. */
	size_t whole;
	enum run_open {
		RUN_OPEN_ANSWER,  /* the answer's object alone */
		RUN_OPEN_RESULTS, /* and the array of results, if there is one */
		RUN_OPEN_ROWS,    /* and one result, and its rows */
	} open;
};

/* QUERY_ANSWERED: all statements ran, and out (with what was flushed) holds the answer up to its trailer. Else the error
 * is set, except for QUERY_GONE and QUERY_OVER_BUDGET, and run_break_off() makes out presentable. */
enum query_outcome run_request(struct run *r);

/* Sets the error for a buffer that could not grow. */
enum query_outcome run_out_of_memory(struct run *r);

/* Takes a failed run's partial answer back or, when a piece of it was flushed, closes it with the error. Returns the
 * outcome to report. */
enum query_outcome run_break_off(struct run *r, enum query_outcome outcome);

/* QUERY_FORBIDDEN when the request's role does not allow the statement. */
enum query_code run_check_role(const struct query_request *request, const struct statement *s,
			       struct query_error *error);

/* The only rule on formats: ndjson is for a single reading statement in `sql`. */
enum query_code run_check_format(const struct query_request *request, const struct statement *first,
				 struct query_error *error);

/* Whether the request holds several statements, so that errors name theirs. first is the first one, NULL when it could not
 * even be prepared. */
bool run_holds_several(const struct query_request *request, const struct statement *first);

#endif
