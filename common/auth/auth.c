/*
 * auth.c - see auth.h. A table sorted by id behind a mutex that only a connection's first check takes.
 *
 * Invariant: generation counts up, under the mutex, with every change of what is accepted; a memo of an older one is
 * void.
 */
#include "common/auth/auth.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/clock.h"

#define SECRET_SIZE 192 /* at least XXH3_SECRET_SIZE_MIN */

struct auth {
	uint8_t cluster_id[16];
	uint8_t secret[SECRET_SIZE]; /* of the memos' hash */
	atomic_uint_fast64_t generation;
	pthread_mutex_t mutex;  /* guards what follows */
	struct token_file file; /* entries sorted by id */
	bool has_first;
	bool first_well_known;
	uint8_t first_salt[TOKEN_SALT_SIZE];
	uint8_t first_hash[TOKEN_HASH_SIZE];
};

enum db_err auth_create(struct auth **out, const uint8_t cluster_id[16], struct errmsg *em)
{
	struct auth *a = calloc(1, sizeof(*a));

	*out = NULL;
	if (a == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory");
	if (getentropy(a->secret, sizeof(a->secret)) != 0) {
		free(a);
		return errmsg_set(em, DB_IO, "cannot get random bytes");
	}
	memcpy(a->cluster_id, cluster_id, sizeof(a->cluster_id));
	atomic_init(&a->generation, 1);
	pthread_mutex_init(&a->mutex, NULL);
	*out = a;
	return DB_OK;
}

void auth_free(struct auth *a)
{
	if (a == NULL)
		return;
	pthread_mutex_destroy(&a->mutex);
	token_file_fini(&a->file);
	explicit_bzero(a, sizeof(*a));
	free(a);
}

enum db_err auth_set_first(struct auth *a, const char *token, struct errmsg *em)
{
	uint8_t salt[TOKEN_SALT_SIZE], hash[TOKEN_HASH_SIZE];

	if (getentropy(salt, sizeof(salt)) != 0)
		return errmsg_set(em, DB_IO, "cannot get random bytes");
	if (token_hash(hash, salt, a->cluster_id, token, strlen(token)) != DB_OK)
		return errmsg_set(em, DB_NOMEM, "the token cannot be hashed");
	pthread_mutex_lock(&a->mutex);
	memcpy(a->first_salt, salt, sizeof(salt));
	memcpy(a->first_hash, hash, sizeof(hash));
	a->has_first = true;
	a->first_well_known = strcmp(token, AUTH_WELL_KNOWN) == 0;
	atomic_fetch_add(&a->generation, 1);
	pthread_mutex_unlock(&a->mutex);
	return DB_OK;
}

static int by_id(const void *a, const void *b)
{
	return memcmp(((const struct token_entry *)a)->id, ((const struct token_entry *)b)->id, TOKEN_ID_LEN);
}

void auth_set_file(struct auth *a, struct token_file *f)
{
	struct token_file old;

	if (f->count > 0)
		qsort(f->entries, f->count, sizeof(*f->entries), by_id);
	pthread_mutex_lock(&a->mutex);
	old = a->file;
	a->file = *f;
	atomic_fetch_add(&a->generation, 1);
	pthread_mutex_unlock(&a->mutex);
	token_file_fini(&old);
	*f = (struct token_file){0};
}

uint64_t auth_file_checksum(struct auth *a)
{
	uint64_t checksum;

	pthread_mutex_lock(&a->mutex);
	checksum = a->file.checksum;
	pthread_mutex_unlock(&a->mutex);
	return checksum;
}

size_t auth_token_count(struct auth *a)
{
	size_t count;

	pthread_mutex_lock(&a->mutex);
	count = a->file.count;
	pthread_mutex_unlock(&a->mutex);
	return count;
}

/* ---- checking */

static XXH128_hash_t digest_of(const struct auth *a, const char *token, size_t len)
{
	return XXH3_128bits_withSecret(token, len, a->secret, sizeof(a->secret));
}

static bool is_over(uint64_t expires_us)
{
	return expires_us != 0 && clock_wall_us() >= expires_us;
}

enum auth_role auth_remembered(struct auth *a, const struct auth_memo *memo, const char *token, size_t len)
{
	XXH128_hash_t digest;
	uint64_t differs;

	if (memo->generation != atomic_load_explicit(&a->generation, memory_order_acquire))
		return AUTH_NONE;
	digest = digest_of(a, token, len);
	differs = (memo->digest[0] ^ digest.low64) | (memo->digest[1] ^ digest.high64);
	return differs != 0 || is_over(memo->expires_us) ? AUTH_NONE : memo->role;
}

static const struct token_entry *find(const struct auth *a, const char *token, size_t len)
{
	const char *id = token_text_id(token, len);
	struct token_entry key;

	if (id == NULL || a->file.count == 0)
		return NULL;
	memcpy(key.id, id, TOKEN_ID_LEN);
	return bsearch(&key, a->file.entries, a->file.count, sizeof(key), by_id);
}

static bool fits(const struct auth *a, const uint8_t salt[TOKEN_SALT_SIZE], const uint8_t hash[TOKEN_HASH_SIZE],
		 const char *token, size_t len)
{
	uint8_t theirs[TOKEN_HASH_SIZE];

	return token_hash(theirs, salt, a->cluster_id, token, len) == DB_OK &&
	       CRYPTO_memcmp(theirs, hash, sizeof(theirs)) == 0;
}

/* With the mutex held. On AUTH_OK memo has role and expiry. */
static enum auth_verdict judge(const struct auth *a, struct auth_memo *memo, const char *token, size_t len,
			       bool from_loopback, char name[TOKEN_NAME_MAX + 1])
{
	const struct token_entry *e = find(a, token, len);

	if (e != NULL && fits(a, e->salt, e->hash, token, len)) {
		if (is_over(e->expires_us)) {
			memcpy(name, e->name, sizeof(e->name));
			return AUTH_EXPIRED;
		}
		memo->role = e->role;
		memo->expires_us = e->expires_us;
		memcpy(memo->name, e->name, sizeof(memo->name));
		return AUTH_OK;
	}
	if (!a->has_first || !fits(a, a->first_salt, a->first_hash, token, len))
		return AUTH_UNKNOWN;
	if (a->first_well_known && !from_loopback)
		return AUTH_NOT_HERE;
	memo->role = AUTH_ADMIN;
	memo->expires_us = 0;
	return AUTH_OK;
}

enum auth_verdict auth_check(struct auth *a, struct auth_memo *memo, const char *token, size_t len, bool from_loopback,
			     char name[TOKEN_NAME_MAX + 1])
{
	XXH128_hash_t digest = digest_of(a, token, len);
	enum auth_verdict verdict;

	name[0] = '\0';
	*memo = (struct auth_memo){0};
	pthread_mutex_lock(&a->mutex);
	verdict = judge(a, memo, token, len, from_loopback, name);
	if (verdict == AUTH_OK) {
		memo->generation = atomic_load(&a->generation);
		memo->digest[0] = digest.low64;
		memo->digest[1] = digest.high64;
	}
	pthread_mutex_unlock(&a->mutex);
	return verdict;
}

bool auth_same_token(const char *a, const char *b)
{
	size_t len = strlen(a);

	return len == strlen(b) && CRYPTO_memcmp(a, b, len) == 0;
}
