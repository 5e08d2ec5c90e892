/*
 * bind.h - gives the parameters of a request to the statements of one SQL text, in order.
 *
 * Positional values are dealt out: each statement takes the next as many as it has parameters. Named values serve every
 * statement; a name matches a variable with or without its prefix (: @ $). In the end each variable has had a value and
 * each value has been used, else BAD_REQUEST, before the last statement runs. Lives on the stack of one walk.
 */
#ifndef GRIZZLY_COMMON_QUERY_BIND_H
#define GRIZZLY_COMMON_QUERY_BIND_H

#include "common/query/conn.h"

struct binder {
	const struct query_param *params; /* borrowed from the request, as the values bound are */
	size_t count;
	size_t taken;                                      /* positional ones given out */
	uint64_t used[(QUERY_NAMED_PARAMS_MAX + 63) / 64]; /* a bit for each name */
};

void binder_init(struct binder *b, const struct query_statement *from);
/* The caller clears the bindings once the statement has run. */
enum query_code binder_bind(struct binder *b, struct query_conn *c, const struct statement *to,
			    struct query_error *error);

#endif
