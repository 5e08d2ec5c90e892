/*
 * remote_query.h - one client's request whose statements name tables of other nodes while it runs here: its tables, the scans
 * SQLite makes of them, and what these have fetched. The inside of remote_tables.c, remote_vtab.c, remote_scan.c,
 * remote_keys.c and remote_explain.c.
 *
 * The request runs in passes, from the start each, in one snapshot of this node's data:
 *  - A scan that stands in no loop is asked for once. It is read as it comes, and kept only where it may be needed again.
 *  - A scan in a loop, whose conditions depend on the outer rows, has keys: sets of values to look for. A key that is not
 *    known yet is recorded and yields no rows; that makes the pass a collecting one, of which nothing reaches the client.
 *    Between passes the keys are asked for, many in a request, and the next pass finds them.
 *  - When a scan has so many keys that they are a good part of the table, the table is fetched once, with the conditions that
 *    are the same for all keys, and found by hash here.
 *
 * Invariants: (1) rows go to the client only in a pass that has missed no key; (2) what was fetched for a scan never changes
 * and stays until the request ends, so every pass sees the same; (3) what a scan yields is a superset of what it was asked
 * for, and SQLite checks it again, unless all conditions were left to the other node, constants, and exact.
 *
 * All on the request's thread.
 */
#ifndef GRIZZLY_COMMON_REMOTE_REMOTE_QUERY_H
#define GRIZZLY_COMMON_REMOTE_REMOTE_QUERY_H

#include <sqlite3.h>

#include "common/remote/remote_sql.h"
#include "common/remote/row_store.h"

#define REMOTE_ROOTS_MAX 64
#define REMOTE_AHEAD_MAX 8 /* scans that are asked for before SQLite begins them */

/* A virtual table: a table of another node, or a subquery that is sent there whole. */
struct remote_unit {
	struct remote_query *query;
	char *module; /* its name in the SQL: "host:port@table" */
	char *table;  /* NULL: a subquery */
	char address[FEDERATION_ADDRESS_MAX];
	char name[FEDERATION_NAME_MAX]; /* for messages */
	struct remote_schema *schema;
	bool
	    numbered; /* fetched whole and numbered here: its rows have no rowid, and SQLite needs one (RIGHT, FULL JOIN) */
	bool cached; /* its schema was not fetched for this query */
	bool registered;
};

/* The answer to a scan with its values, as far as it has come. */
struct remote_result {
	struct remote_result *next;
	struct remote_plan *plan;
	struct buf arguments;         /* the values, as remote_arguments_put() writes them */
	struct remote_ask *ask;       /* NULL: all has come */
	struct row_store *store;      /* rows that are kept; NULL: they go by */
	bool keep;                    /* all rows are in the store, from the first */
	bool taken;                   /* a cursor has begun to read it */
	struct remote_cursor *reader; /* whose rows go by */
};

/* One set of values that a scan in a loop looks for. */
struct remote_key {
	uint32_t hash;
	const struct stored_row *values; /* a row of key_values: one for each condition */
	struct stored_row *first, *last;
	bool known; /* its rows have been fetched */
};

/* One of the ways SQLite may scan a unit, and what came of it. Equal ones are one, in all passes. */
struct remote_plan {
	struct remote_query *query;
	struct remote_unit *unit;
	size_t id;        /* SQLite's idxNum */
	char *shape_text; /* what tells it from others */
	char label[16];   /* SQLite's idxStr: "#id" */
	struct remote_shape shape;
	int *position; /* of each column of the unit in the scan's rows, the rowid's last; -1: not asked for */
	bool chosen;   /* a prepared statement has it */
	bool in_loop;  /* and may scan more than once in a pass */
	bool keyed;    /* it has keys: conditions in a loop, but for lists */
	struct remote_result *results;

	/* Of a keyed one: */
	struct remote_key *keys;
	size_t key_count, key_room;
	size_t asked;        /* keys before it were asked for */
	uint32_t *key_slots; /* hash table: index in keys, plus 1 */
	size_t slot_mask;
	struct row_store *key_rows;
	struct row_store *key_values; /* a row for each key */
	unsigned rounds;              /* how often keys were asked for */
	struct key_request *requests; /* under way; NULL: none */
	uint64_t strange;             /* keys fetched one by one, because they differ from pass to pass */
	bool want_whole;
	struct remote_result *whole;   /* NULL: not fetched */
	struct row_index *index;       /* of whole; NULL: no condition can be found by hash */
	struct remote_argument *fixed; /* what whole was fetched with */
};

struct remote_query {
	struct remote_asker asker;
	struct remote_schemas *schemas;
	struct row_budget budget;
	sqlite3 *db;
	struct remote_unit **units;
	size_t unit_count;
	struct remote_plan **plans;
	size_t plan_count, plan_room;
	int roots[REMOTE_ROOTS_MAX]; /* of this node's tables and indexes that the statements read */
	size_t root_count;
	bool
	    prefer_keys; /* SQLite is told that scans by keys are best: a table of this node is small, which it does not know */
	bool replan;    /* that was wrong: there are too many keys */
	bool has_keyed; /* a statement has a keyed scan: everything is kept, for there may be more passes */
	bool may_miss;  /* in this pass: a row may not go to the client before the pass has ended */
	bool missed;    /* this pass is a collecting one */
	bool abort;     /* it has been ended: it would only collect what is fetched anyway */
	bool sent;      /* the client has got a piece of the answer */
	bool
	    has_where; /* so no LIMIT is pushed: SQLite 3.40 offers it beside terms that it does not show (t.a = t.b) */
	bool outer_joins;         /* there may be a RIGHT or FULL JOIN, which needs every row's rowid */
	bool left_joins;          /* there may be a LEFT JOIN */
	bool number_rows;         /* rows without rowid are numbered here: SQLite asked for one */
	bool stale;               /* a schema turned out to be old: begin anew, unless sent */
	struct query_error error; /* of a scan; code OK: none */
};

/* ---- remote_query.c */

void remote_query_fini(struct remote_query *q);
/* Adds a unit, or finds the one of that name. NULL: no memory. */
struct remote_unit *remote_query_add_unit(struct remote_query *q, const char *module, const char *address,
					  const char *name, const char *table);
/* The unit of that name; NULL: there is none. */
struct remote_unit *remote_query_find_unit(struct remote_query *q, const char *module);
/* Takes back a unit that was just added. */
void remote_query_drop_unit(struct remote_query *q, struct remote_unit *unit);
/* The plan of that shape: a new one, which takes the shape's arrays, or the one there is, and they are freed. NULL: no memory. */
struct remote_plan *remote_query_add_plan(struct remote_query *q, struct remote_unit *unit, struct remote_shape *shape);
/* Keeps the first error. Returns its code. */
enum query_code remote_query_fail(struct remote_query *q, const struct query_error *error);
enum query_code remote_query_no_memory(struct remote_query *q);

/* Appends values so that equal bytes are equal arguments. */
void remote_arguments_put(struct buf *out, const struct remote_argument *arguments, size_t count);

/* ---- remote_scan.c */

/* A scan's answer: asked for. NULL: q->error. */
struct remote_result *remote_result_start(struct remote_plan *plan, const struct remote_argument *arguments,
					  uint64_t limit, bool keep);
/* Reads all that is still to come into the store. */
enum query_code remote_result_load(struct remote_result *r);
void remote_result_free(struct remote_result *r);
/* The next row of an answer, whose rows have so many columns; what stands before them is checked on the way. wait: blocks.
 * QUERY_OK with *values NULL: that was the last, or (*busy) nothing has come. */
enum query_code remote_next_row(struct remote_plan *plan, struct remote_ask *ask, size_t columns, bool wait,
				const struct query_value **values, bool *busy);
/* For remote_asker.meanwhile: arg is the query. */
int remote_query_read_meanwhile(void *arg, const struct remote_ask *waited_for);
/* Asks for what will be needed for certain: scans without values. */
enum query_code remote_query_prefetch(struct remote_query *q);
/* Where a cursor of SQLite stands. */
struct remote_cursor {
	struct remote_plan *plan; /* NULL: nowhere yet */
	enum remote_source { SOURCE_NONE, SOURCE_STREAM, SOURCE_STORE, SOURCE_LIST, SOURCE_INDEX } source;
	struct remote_result *result; /* of STREAM and STORE */
	struct row_walk walk;         /* of STORE */
	const struct row_store *store;
	const struct stored_row *row;
	const struct query_value *values; /* of the current row, when they are known */
	struct query_value *room;         /* for them; owned */
	size_t room_len;
	bool eof;
	bool lasting; /* texts and blobs live until the request ends */
};

/* Begins a scan. arguments: one for each condition; borrowed. */
enum query_code remote_cursor_filter(struct remote_cursor *c, struct remote_plan *plan,
				     struct remote_argument *arguments, uint64_t limit);
/* It stands on no row. */
void remote_cursor_clear(struct remote_cursor *c);
enum query_code remote_cursor_next(struct remote_cursor *c);
const struct query_value *remote_cursor_values(struct remote_cursor *c);
void remote_cursor_fini(struct remote_cursor *c);

/* ---- remote_keys.c */

/* A keyed plan's scan: sets the cursor on the key's rows, or records the key. */
enum query_code remote_keys_filter(struct remote_cursor *c, struct remote_plan *plan,
				   struct remote_argument *arguments);
/* Between passes: fetches all that was recorded. */
enum query_code remote_query_fetch_keys(struct remote_query *q);
/* The same as remote_query_read_meanwhile(), of one plan's requests by keys. */
int remote_keys_read_meanwhile(struct remote_plan *plan, const struct remote_ask *waited_for);
void remote_keys_fini(struct remote_plan *plan);
/* Whether a request by keys would make the other node look through its whole table. */
bool remote_plan_is_indexed(const struct remote_plan *plan);

/* ---- remote_whole.c */

/* Whether rows can be found by the hash of what it compares. */
bool remote_condition_is_hashed(const struct remote_condition *c);
bool remote_plan_has_hashed(const struct remote_plan *plan);
/* The values of a key, one for each condition. */
void remote_key_get(const struct remote_plan *plan, const struct remote_key *key, struct query_value *values);
/* Asks for the table. */
enum query_code remote_whole_start(struct remote_plan *plan);
/* Reads it, and makes the index. */
enum query_code remote_whole_finish(struct remote_plan *plan);
/* Whether it has the rows of this key. */
bool remote_whole_has(const struct remote_plan *plan, const struct remote_argument *arguments);
/* Sets the cursor on them. */
enum query_code remote_whole_find(struct remote_cursor *c, struct remote_plan *plan,
				  const struct remote_argument *arguments);

#endif
