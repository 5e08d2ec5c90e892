/*
 * auth.h - whose request is this? The tokens that one process accepts, checked on any thread.
 *
 * Two sources: the cluster's first token (D/token; an admin's) and the tokens file (token_file.h). Both may be loaded
 * again at any time; what was revoked is refused from then on, on kept-alive connections too, and an expired token
 * from its very second on. Of each token only a salted hash is kept.
 *
 * A connection has an auth_memo: the keyed hash of the token that it sent last and what that allows, so that its next
 * request costs some nanoseconds instead of an HMAC. The memo's hash (XXH3, 128 bits, under a secret that this
 * process drew and never shows) is only ever compared with what the same connection sends; a load makes all memos
 * void by counting up.
 *
 * The well-known token AUTH_WELL_KNOWN is accepted only as the first token, which somebody must have set, and only from
 * loopback addresses.
 */
#ifndef GRIZZLY_COMMON_AUTH_AUTH_H
#define GRIZZLY_COMMON_AUTH_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auth/role.h"
#include "common/auth/token_file.h"
#include "common/base/err.h"

#define AUTH_WELL_KNOWN "secure_token_2026"

struct auth;

/* One connection's; zero: nothing was checked yet. The thread's that has the connection. */
struct auth_memo {
	uint64_t digest[2];
	uint64_t generation; /* of the tokens it was checked against; 0: none */
	uint64_t expires_us; /* 0: never */
	enum auth_role role;
	char name[TOKEN_NAME_MAX + 1]; /* "": the first token's, which has none */
};

/* What the check of a token came to. */
enum auth_verdict {
	AUTH_OK,
	AUTH_UNKNOWN,  /* no such token, or malformed */
	AUTH_EXPIRED,  /* it was one */
	AUTH_NOT_HERE, /* the well-known one, from elsewhere */
};

/* Accepts nothing yet. cluster_id is copied. */
enum db_err auth_create(struct auth **out, const uint8_t cluster_id[16], struct errmsg *em);
void auth_free(struct auth *a); /* NULL is fine */

/* Any thread. On an error what was accepted before still is. */
enum db_err auth_set_first(struct auth *a, const char *token, struct errmsg *em);
/* Takes the entries of f, which is empty afterwards. */
void auth_set_file(struct auth *a, struct token_file *f);
/* The checksum of the tokens file that was set last; 0: none, or an empty one that never was a file. */
uint64_t auth_file_checksum(struct auth *a);
size_t auth_token_count(struct auth *a); /* of the tokens file */

/* Whether memo is of this very token and still good; the role, or AUTH_NONE: ask auth_check(). Any thread. */
enum auth_role auth_remembered(struct auth *a, const struct auth_memo *memo, const char *token, size_t len);
/* The whole check; notes the outcome in memo when it is AUTH_OK. name: of an expired token, else "". */
enum auth_verdict auth_check(struct auth *a, struct auth_memo *memo, const char *token, size_t len, bool from_loopback,
			     char name[TOKEN_NAME_MAX + 1]);
/* In a time that tells nothing but the lengths. */
bool auth_same_token(const char *a, const char *b);

#endif
