/*
 * shipped_answer.h - the answer of another node to a request that was shipped to it whole, on its way to our client.
 *
 * Takes the bytes as they come, checks that they are an answer of POST /query, and yields what the client gets: the rows and
 * their like as they are, without what our own end of the answer says anew (status, node, time_ms, …). What is yielded ends
 * at whole rows, so that an answer that breaks off can be closed with an error. Memory is that of one row.
 *
 * Pure; one per answer, on one thread. The bytes are hostile: anything that is no such answer is an error.
 */
#ifndef GRIZZLY_COMMON_REMOTE_SHIPPED_ANSWER_H
#define GRIZZLY_COMMON_REMOTE_SHIPPED_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/query/answer.h"

struct shipped_answer;

/* reads: rows are what was asked for; otherwise a result may do without. Errors: DB_NOMEM. */
enum db_err shipped_answer_create(struct shipped_answer **out, bool ndjson, bool reads);
void shipped_answer_free(struct shipped_answer *a); /* NULL is fine */

/* DB_CORRUPT: this is no answer; DB_TOO_LARGE, DB_NOMEM. After an error only shipped_answer_break_off() makes sense. */
enum db_err shipped_answer_feed(struct shipped_answer *a, const void *bytes, size_t len, struct errmsg *em);
/* All has come. DB_OK: it is whole, whether it says ok or not; when it does, every result has its columns and all its rows. */
enum db_err shipped_answer_end(struct shipped_answer *a, struct errmsg *em);

/* What may be sent now; borrowed until the next call. Members of the answer's object ("columns":[…],"rows":[…),
 * without its braces; of an ndjson answer, whole lines. */
const void *shipped_answer_ready(const struct shipped_answer *a, size_t *len);
void shipped_answer_sent(struct shipped_answer *a, size_t len); /* drops the first len bytes of these */
/* Something goes wrong: drops what was not complete, and closes what is open except the answer's object itself, so that
 * ,"status":"error",… may follow what is ready. */
void shipped_answer_break_off(struct shipped_answer *a);
/* Whether a comma is needed between what was yielded in all and a further member. */
bool shipped_answer_has_members(const struct shipped_answer *a);

uint64_t shipped_answer_rows(const struct shipped_answer *a);
/* What it said of itself. Of an ndjson answer: whether its last line so far is an error. */
bool shipped_answer_is_error(const struct shipped_answer *a);
bool shipped_answer_lsn(const struct shipped_answer *a, uint64_t *lsn); /* false: it said none */
/* Of one that is an error: fills *error. Its code is INTERNAL when it is none that we know. */
void shipped_answer_error(const struct shipped_answer *a, struct query_error *error);

#endif
