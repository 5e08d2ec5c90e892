/*
 * role.h - what a token allows: each role includes those below it. Pure.
 *
 *   read   SELECT and what else changes nothing; /status, /metrics, /writes
 *   write  rows: INSERT, UPDATE, DELETE, REPLACE
 *   admin  the schema, VACUUM, PRAGMAs that write, the members, /backup
 */
#ifndef GRIZZLY_COMMON_AUTH_ROLE_H
#define GRIZZLY_COMMON_AUTH_ROLE_H

#include <stdbool.h>

/* In ascending order: a > b allows all that b does. Zero is nobody, so that what was forgotten is refused. */
enum auth_role { AUTH_NONE, AUTH_READ, AUTH_WRITE, AUTH_ADMIN };

const char *auth_role_name(enum auth_role role);             /* "none", "read", "write", "admin" */
bool auth_role_parse(const char *text, enum auth_role *out); /* one of the three; false: none of them */

#endif
