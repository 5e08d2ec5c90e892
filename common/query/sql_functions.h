/*
 * sql_functions.h - which SQL functions clients may call. Pure, cannot fail.
 *
 * A list of those that only compute: the functions of SQLite are many and grow with its versions and with what a
 * distribution builds in, and some reach out of the database (readfile(), writefile(), edit(), load_extension(), …).
 * One that is not listed is refused until somebody has looked at it; tests/unit/test_roles.c names those that the
 * installed SQLite has and nobody has.
 */
#ifndef GRIZZLY_COMMON_QUERY_SQL_FUNCTIONS_H
#define GRIZZLY_COMMON_QUERY_SQL_FUNCTIONS_H

#include <stdbool.h>

bool sql_function_allowed(const char *name);

#endif
