/*
 * admin_sql.h - the statements that are the cluster's and not SQLite's:
 *
 *   ADD REPLICA host:port [READONLY | NONVOTING]      REMOVE REPLICA host:port | nodeN      SHOW REPLICAS
 *
 * In any case, with comments and semicolons around, the address bare or in quotes. Each is a request of its own, without
 * parameters. Pure.
 */
#ifndef GRIZZLY_COMMON_QUERY_ADMIN_SQL_H
#define GRIZZLY_COMMON_QUERY_ADMIN_SQL_H

#include <stdbool.h>

#include "common/query/request.h"

#define ADMIN_ADDRESS_MAX 128 /* NUL included */

enum admin_kind { ADMIN_NONE, ADMIN_ADD_REPLICA, ADMIN_REMOVE_REPLICA, ADMIN_SHOW_REPLICAS };

struct admin_statement {
	enum admin_kind kind;            /* ADMIN_NONE: the request is SQLite's */
	bool readonly;                   /* of ADD */
	char address[ADMIN_ADDRESS_MAX]; /* of ADD and REMOVE */
};

/* QUERY_OK: *out says which. QUERY_BAD_REQUEST: it is one of these, but wrong or not alone; *error says why. */
enum query_code admin_sql_parse(const struct query_request *request, struct admin_statement *out,
				struct query_error *error);

#endif
