/*
 * token_file.h - D/tokens: who holds a token, what it allows, until when. The tokens themselves are not in it.
 *
 * Changed by `grizzly-supervisor token`, read by every node. Text, a line for each token, the last line counts and
 * checks:
 *
 *   grizzly-tokens 1 CLUSTER
 *   ID ROLE CREATED EXPIRES SALT HASH NAME
 *   end COUNT XXH3
 *
 * CLUSTER, ID, SALT, HASH and XXH3 (of all bytes before its line) are lower-case hex; CREATED and EXPIRES
 * microseconds since 1970, EXPIRES 0 for never. What is not exactly that is damaged, and nobody in it may do
 * anything. The file is of one cluster: its id is hashed along with every token, so lines copied into another
 * cluster's file fit no token.
 *
 * A token is gz_ID_SECRET: ID 12 hex digits that find the line, SECRET 64 hex digits, 256 random bits. HASH is
 * HMAC-SHA256 of cluster id and token with the line's salt as key. A fast hash is right here: slow ones (scrypt,
 * bcrypt) make guessing the secrets of people dear, which are short; 256 random bits cannot be guessed at any speed,
 * and a slow hash would only let anybody who sends wrong tokens use up the processor.
 *
 * Written as a new file that replaces the old one (fsync, rename, fsync of the directory): a crash leaves one or the
 * other. Callers that change it hold token_file_lock(). No function is meant for two threads on one struct.
 */
#ifndef GRIZZLY_COMMON_AUTH_TOKEN_FILE_H
#define GRIZZLY_COMMON_AUTH_TOKEN_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/auth/role.h"
#include "common/base/buf.h"
#include "common/base/err.h"

#define TOKEN_FILE_VERSION 1    /* bump when a line's meaning changes; keep reading the old one */
#define TOKEN_FILE_MAX     1000 /* tokens */
#define TOKEN_NAME_MAX     64   /* bytes of a name: letters, digits, '.', '_', '-' */
#define TOKEN_ID_LEN       12
#define TOKEN_SECRET_LEN   64
#define TOKEN_LEN_MAX      256 /* of one that somebody chose, or sends */
#define TOKEN_TEXT_LEN     (3 + TOKEN_ID_LEN + 1 + TOKEN_SECRET_LEN)
#define TOKEN_SALT_SIZE    16
#define TOKEN_HASH_SIZE    32

struct token_entry {
	char id[TOKEN_ID_LEN + 1];
	char name[TOKEN_NAME_MAX + 1];
	enum auth_role role;
	uint64_t created_us;
	uint64_t expires_us; /* 0: never */
	uint8_t salt[TOKEN_SALT_SIZE];
	uint8_t hash[TOKEN_HASH_SIZE];
};

/* Zero-initialised it is an empty file. */
struct token_file {
	struct token_entry *entries; /* in order of creation */
	size_t count;
	uint64_t checksum; /* of what was parsed or put last: names a version of the file; 0: there is none */
};

void token_file_fini(struct token_file *f);

/* Pure. DB_CORRUPT: damaged; DB_INVALID: of a newer format or of another cluster. The message names path and line. On
 * an error *out is empty. */
enum db_err token_file_parse(struct token_file *out, const char *text, size_t len, const uint8_t cluster_id[16],
			     const char *path, struct errmsg *em);
void token_file_put(struct buf *out, struct token_file *f, const uint8_t cluster_id[16]);

/* DB_NOTFOUND: there is no such file, *out is empty. Others as of parsing, DB_IO. */
enum db_err token_file_load(struct token_file *out, const char *path, const uint8_t cluster_id[16], struct errmsg *em);
/* Durable, mode 0600, when it returns DB_OK. On an error the old file stands, or (the directory could not be synced)
 * the new one may. */
enum db_err token_file_store(struct token_file *f, const char *path, const uint8_t cluster_id[16], struct errmsg *em);

/* Serialises those who change the file: an advisory lock on the directory it lies in, the current one. close() *fd. */
enum db_err token_file_lock(int *fd, struct errmsg *em);

/* Adds a line and fills token, NUL-terminated: nobody can learn it later; wipe it after use. DB_EXISTS: the name is
 * taken; DB_INVALID: a bad name; DB_FULL: TOKEN_FILE_MAX. */
enum db_err token_file_add(struct token_file *f, const struct token_entry *like, const uint8_t cluster_id[16],
			   char token[TOKEN_TEXT_LEN + 1], struct errmsg *em);
enum db_err token_file_remove(struct token_file *f, const char *name, struct errmsg *em); /* DB_NOTFOUND */

/* The ID in a token of our form; NULL: it has another form. */
const char *token_text_id(const char *token, size_t len);
/* HMAC-SHA256 as above, of any token of up to TOKEN_LEN_MAX bytes. DB_INVALID: it is longer; DB_NOMEM: libcrypto
 * failed. */
enum db_err token_hash(uint8_t out[TOKEN_HASH_SIZE], const uint8_t salt[TOKEN_SALT_SIZE], const uint8_t cluster_id[16],
		       const char *token, size_t len);

#endif
