/*
 * request.h - the body of POST /query, parsed and checked.
 *
 * Takes the contract's JSON and refuses everything else with BAD_REQUEST: unknown keys, wrong types, both `sql` and
 * `statements`, invalid UTF-8, integers beyond 64 bits, bad base64. Integers stay exact. Pure; may fail on memory.
 *
 * Keys: sql, token, params, statements (each with sql and params), consistency, min_lsn, max_lag_ms, timeout_ms, format,
 * request_id.
 * `params` beside `sql`: an array is dealt out in order, each statement of the text taking the next as many values as it
 * has parameters; an object serves all of its statements by name. Either way every parameter must get a value and every
 * value must be used; that is checked at execution (bind.h). `min_lsn` contradicts "stale", `max_lag_ms` "session".
 */
#ifndef GRIZZLY_COMMON_QUERY_REQUEST_H
#define GRIZZLY_COMMON_QUERY_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auth/role.h"
#include "common/query/answer.h"

enum query_consistency { QUERY_LINEARIZABLE, QUERY_SESSION, QUERY_STALE };
enum query_format { QUERY_ROWS, QUERY_OBJECTS, QUERY_NDJSON };

#define QUERY_NAMED_PARAMS_MAX 1000 /* names in one `params` object */
#define QUERY_REQUEST_ID_MAX   64   /* bytes of a request_id */
#define QUERY_FINGERPRINT_SIZE 16

enum query_value_type { QUERY_NULL, QUERY_INTEGER, QUERY_REAL, QUERY_TEXT, QUERY_BLOB };

struct query_value {
	enum query_value_type type;
	union {
		int64_t integer; /* booleans too: 0, 1 */
		double real;
		struct {
			const char *bytes; /* text is UTF-8 and may hold NULs */
			size_t len;
		} data;
	};
};

struct query_param {
	const char *name; /* as in the request, with or without its : @ or $; NULL: positional */
	struct query_value value;
};

struct query_statement {
	const char *sql; /* NUL-terminated; may hold several statements when it came as `sql` */
	size_t sql_len;
	const struct query_param *params;
	size_t param_count;
};

/* Immutable once parsed and given a role and a trace_id; everything it points to is its own. */
struct query_request {
	enum auth_role role; /* whose it is may do so much; AUTH_NONE, which allows nothing, until somebody sets it */
	const char *token;   /* NULL: not in the body */
	struct query_statement *statements;
	size_t statement_count;
	bool from_statements; /* it came as `statements`: the answer has `results` even for one */
	enum query_consistency consistency;
	uint64_t min_lsn;    /* 0: not given */
	uint64_t max_lag_ms; /* UINT64_MAX: not given */
	uint64_t timeout_ms; /* 0: not given */
	enum query_format format;
	bool typed; /* a read is answered as typed rows: the frontend sets it, for QUERY_ROWS only; the body does not */
	const char *request_id; /* NUL-terminated, as query_request_id_ok() has it; NULL: not given */
	/* What it is called in logs: its request_id, or what the frontend has found or made for it. "": nobody says. */
	char trace_id[QUERY_REQUEST_ID_MAX + 1];
	const struct query_request
	    *asked;     /* the client's, for which this one stands in: its fingerprint counts; NULL: none */
	void *document; /* private: the parsed JSON the pointers point into */
};

struct query_request_limits {
	size_t sql_length_max; /* bytes of one SQL text; longer: TOO_LARGE; 0: no limit */
	size_t statements_max; /* entries of `statements`; more: TOO_LARGE; 0: no limit */
};

/* QUERY_OK: *out is the caller's, for query_request_free(). Otherwise *out is NULL and *error says why. */
enum query_code query_request_parse(struct query_request **out, const void *body, size_t len,
				    const struct query_request_limits *limits, struct query_error *error);
void query_request_free(struct query_request *r); /* NULL is fine */

/* 1 to QUERY_REQUEST_ID_MAX bytes of UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F). */
bool query_request_id_ok(const char *id, size_t len);

/* What the request asks, in a few bytes: equal for equal statements, parameters and format, whatever the order of named
 * parameters; anything else of the request does not count. Stored with receipts (receipts.h): never change what it yields
 * without changing QUERY_FINGERPRINT_VERSION, which is part of it. */
#define QUERY_FINGERPRINT_VERSION 1
void query_request_fingerprint(const struct query_request *r, uint8_t out[QUERY_FINGERPRINT_SIZE]);

#endif
