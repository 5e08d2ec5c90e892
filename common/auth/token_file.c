/* token_file.c - see token_file.h. */
#include "common/auth/token_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC          "grizzly-tokens"
#define PREFIX         "gz_"
#define HASHED_PREFIX  "grizzly token 1"
#define FILE_BYTES_MAX ((size_t)512 << 10) /* TOKEN_FILE_MAX lines are shorter */
#define CLUSTER_SIZE   16

/* ---- hex */

static void put_hex(struct buf *out, const uint8_t *bytes, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf_printf(out, "%02x", bytes[i]);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_hex(const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (hex_value(text[i]) < 0)
			return false;
	return true;
}

/* text is exactly 2 * size digits. */
static bool parse_hex(uint8_t *out, size_t size, const char *text)
{
	size_t i;

	if (strlen(text) != 2 * size || !is_hex(text, 2 * size))
		return false;
	for (i = 0; i < size; i++)
		out[i] = (uint8_t)(hex_value(text[2 * i]) << 4 | hex_value(text[2 * i + 1]));
	return true;
}

static bool parse_u64(const char *text, uint64_t *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9' || (text[0] == '0' && text[1] != '\0'))
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return *end == '\0' && errno == 0;
}

static bool name_ok(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len <= TOKEN_NAME_MAX && name[0] != '-' &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

/* ---- tokens */

const char *token_text_id(const char *token, size_t len)
{
	const char *id = token + sizeof(PREFIX) - 1;

	if (len != TOKEN_TEXT_LEN || memcmp(token, PREFIX, sizeof(PREFIX) - 1) != 0 || !is_hex(id, TOKEN_ID_LEN) ||
	    id[TOKEN_ID_LEN] != '_')
		return NULL;
	return id;
}

enum db_err token_hash(uint8_t out[TOKEN_HASH_SIZE], const uint8_t salt[TOKEN_SALT_SIZE], const uint8_t cluster_id[16],
		       const char *token, size_t len)
{
	uint8_t text[sizeof(HASHED_PREFIX) - 1 + CLUSTER_SIZE + TOKEN_LEN_MAX];
	size_t at = sizeof(HASHED_PREFIX) - 1;
	unsigned size = 0;
	bool done;

	if (len > TOKEN_LEN_MAX)
		return DB_INVALID;
	memcpy(text, HASHED_PREFIX, at);
	memcpy(text + at, cluster_id, CLUSTER_SIZE);
	memcpy(text + at + CLUSTER_SIZE, token, len);
	at += CLUSTER_SIZE + len;
	done = HMAC(EVP_sha256(), salt, TOKEN_SALT_SIZE, text, at, out, &size) != NULL && size == TOKEN_HASH_SIZE;
	explicit_bzero(text, at);
	return done ? DB_OK : DB_NOMEM;
}

static struct token_entry *find_name(const struct token_file *f, const char *name)
{
	size_t i;

	for (i = 0; i < f->count; i++)
		if (strcmp(f->entries[i].name, name) == 0)
			return &f->entries[i];
	return NULL;
}

static bool has_id(const struct token_file *f, const char *id)
{
	size_t i;

	for (i = 0; i < f->count; i++)
		if (memcmp(f->entries[i].id, id, TOKEN_ID_LEN) == 0)
			return true;
	return false;
}

static bool append(struct token_file *f, const struct token_entry *e)
{
	struct token_entry *entries = realloc(f->entries, (f->count + 1) * sizeof(*entries));

	if (entries == NULL)
		return false;
	f->entries = entries;
	f->entries[f->count++] = *e;
	return true;
}

/* Random id and secret, as text. */
static enum db_err make_token(char token[TOKEN_TEXT_LEN + 1], struct errmsg *em)
{
	uint8_t id[TOKEN_ID_LEN / 2], secret[TOKEN_SECRET_LEN / 2];
	size_t at, i;

	if (getentropy(id, sizeof(id)) != 0 || getentropy(secret, sizeof(secret)) != 0)
		return errmsg_errno(em, errno, "cannot get random bytes");
	at = (size_t)sprintf(token, PREFIX);
	for (i = 0; i < sizeof(id); i++)
		at += (size_t)sprintf(token + at, "%02x", id[i]);
	token[at++] = '_';
	for (i = 0; i < sizeof(secret); i++)
		at += (size_t)sprintf(token + at, "%02x", secret[i]);
	explicit_bzero(secret, sizeof(secret));
	return DB_OK;
}

enum db_err token_file_add(struct token_file *f, const struct token_entry *like, const uint8_t cluster_id[16],
			   char token[TOKEN_TEXT_LEN + 1], struct errmsg *em)
{
	struct token_entry e = *like;
	enum db_err err = DB_OK;

	explicit_bzero(token, TOKEN_TEXT_LEN + 1);
	if (!name_ok(like->name))
		return errmsg_set(em, DB_INVALID,
				  "\"%.80s\" cannot be the name of a token: 1 to %d letters, digits, '.', '_' or '-'",
				  like->name, TOKEN_NAME_MAX);
	if (find_name(f, like->name) != NULL)
		return errmsg_set(em, DB_EXISTS, "there is a token \"%s\" already: revoke it first", like->name);
	if (f->count >= TOKEN_FILE_MAX)
		return errmsg_set(em, DB_FULL, "there are %d tokens already, which is the limit: revoke some",
				  TOKEN_FILE_MAX);
	do
		err = make_token(token, em);
	while (err == DB_OK && has_id(f, token + sizeof(PREFIX) - 1));
	if (err == DB_OK && getentropy(e.salt, sizeof(e.salt)) != 0)
		err = errmsg_errno(em, errno, "cannot get random bytes");
	if (err == DB_OK && token_hash(e.hash, e.salt, cluster_id, token, TOKEN_TEXT_LEN) != DB_OK)
		err = errmsg_set(em, DB_NOMEM, "the token cannot be hashed");
	if (err == DB_OK) {
		memcpy(e.id, token + sizeof(PREFIX) - 1, TOKEN_ID_LEN);
		e.id[TOKEN_ID_LEN] = '\0';
		if (!append(f, &e))
			err = errmsg_set(em, DB_NOMEM, "out of memory");
	}
	if (err != DB_OK)
		explicit_bzero(token, TOKEN_TEXT_LEN + 1);
	return err;
}

enum db_err token_file_remove(struct token_file *f, const char *name, struct errmsg *em)
{
	struct token_entry *e = find_name(f, name);

	if (e == NULL)
		return errmsg_set(em, DB_NOTFOUND, "there is no token \"%.80s\"", name);
	f->count--;
	memmove(e, e + 1, (size_t)(f->entries + f->count - e) * sizeof(*e));
	return DB_OK;
}

void token_file_fini(struct token_file *f)
{
	free(f->entries);
	*f = (struct token_file){0};
}

/* ---- text */

void token_file_put(struct buf *out, struct token_file *f, const uint8_t cluster_id[16])
{
	const struct token_entry *e;
	size_t start = out->len;

	buf_printf(out, MAGIC " %d ", TOKEN_FILE_VERSION);
	put_hex(out, cluster_id, CLUSTER_SIZE);
	buf_puts(out, "\n");
	for (e = f->entries; e < f->entries + f->count; e++) {
		buf_printf(out, "%s %s %" PRIu64 " %" PRIu64 " ", e->id, auth_role_name(e->role), e->created_us,
			   e->expires_us);
		put_hex(out, e->salt, sizeof(e->salt));
		buf_puts(out, " ");
		put_hex(out, e->hash, sizeof(e->hash));
		buf_printf(out, " %s\n", e->name);
	}
	if (out->failed)
		return;
	f->checksum = XXH3_64bits(out->data + start, out->len - start);
	buf_printf(out, "end %zu %016" PRIx64 "\n", f->count, f->checksum);
}

struct parser {
	char *text; /* a copy: lines are cut in place */
	const char *path;
	unsigned line;
	struct errmsg *em;
};

static enum db_err damaged(const struct parser *p, const char *what)
{
	return errmsg_set(p->em, DB_CORRUPT, "%s:%u: the tokens file is damaged: %s", p->path, p->line, what);
}

/* Cuts the line at *at into words at single spaces; false: another number of them, or no end of line. */
static bool cut_line(char **at, char *words[], size_t count)
{
	char *end = strchr(*at, '\n');
	size_t i;

	if (end == NULL)
		return false;
	*end = '\0';
	for (i = 0; i < count; i++) {
		words[i] = *at;
		*at += strcspn(*at, " ");
		if (words[i][0] == ' ' || words[i][0] == '\0' || (**at == '\0') != (i + 1 == count))
			return false;
		if (**at == ' ')
			*(*at)++ = '\0';
	}
	*at = end + 1;
	return true;
}

static enum db_err parse_head(struct parser *p, char **at, const uint8_t cluster_id[16])
{
	uint8_t cluster[CLUSTER_SIZE];
	uint64_t version;
	char *words[3];

	p->line = 1;
	if (!cut_line(at, words, 3) || strcmp(words[0], MAGIC) != 0 || !parse_u64(words[1], &version))
		return damaged(p, "it does not begin as one");
	if (version != TOKEN_FILE_VERSION)
		return errmsg_set(p->em, DB_INVALID, "%s: a tokens file of format %" PRIu64 ", this program knows %d",
				  p->path, version, TOKEN_FILE_VERSION);
	if (!parse_hex(cluster, sizeof(cluster), words[2]))
		return damaged(p, "bad cluster");
	if (memcmp(cluster, cluster_id, sizeof(cluster)) != 0)
		return errmsg_set(p->em, DB_INVALID, "%s: these are the tokens of another cluster", p->path);
	return DB_OK;
}

static enum db_err parse_entry(struct parser *p, struct token_file *f, char **at)
{
	struct token_entry e = {0};
	char *words[7];

	p->line++;
	if (!cut_line(at, words, 7) || strlen(words[0]) != TOKEN_ID_LEN || !is_hex(words[0], TOKEN_ID_LEN) ||
	    !auth_role_parse(words[1], &e.role) || !parse_u64(words[2], &e.created_us) ||
	    !parse_u64(words[3], &e.expires_us) || !parse_hex(e.salt, sizeof(e.salt), words[4]) ||
	    !parse_hex(e.hash, sizeof(e.hash), words[5]) || !name_ok(words[6]))
		return damaged(p, "bad line");
	memcpy(e.id, words[0], TOKEN_ID_LEN + 1);
	snprintf(e.name, sizeof(e.name), "%s", words[6]);
	if (has_id(f, e.id) || find_name(f, e.name) != NULL)
		return damaged(p, "a token is in it twice");
	if (f->count >= TOKEN_FILE_MAX)
		return damaged(p, "too many tokens");
	return append(f, &e) ? DB_OK : errmsg_set(p->em, DB_NOMEM, "out of memory for the tokens");
}

static enum db_err parse_end(struct parser *p, struct token_file *f, char *at, uint64_t checksum)
{
	uint8_t bytes[8];
	uint64_t count, said = 0;
	char *words[3];
	size_t i;

	p->line++;
	if (!cut_line(&at, words, 3) || *at != '\0' || !parse_u64(words[1], &count) || count != f->count ||
	    !parse_hex(bytes, sizeof(bytes), words[2]))
		return damaged(p, "it does not end as it should");
	for (i = 0; i < sizeof(bytes); i++)
		said = said << 8 | bytes[i];
	if (said != checksum)
		return damaged(p, "its checksum is wrong: only `grizzly-supervisor token` may change it");
	f->checksum = checksum;
	return DB_OK;
}

/* The checksum first of all: what it does not cover is not looked at more closely, but for what says more to people. */
static enum db_err parse_text(struct parser *p, struct token_file *f, const uint8_t cluster_id[16])
{
	char *at = p->text, *end = strstr(p->text, "\nend ");
	uint64_t checksum = end != NULL ? XXH3_64bits(p->text, (size_t)(end + 1 - p->text)) : 0;
	enum db_err err = parse_head(p, &at, cluster_id);

	while (err == DB_OK && strncmp(at, "end ", 4) != 0)
		err = *at == '\0' ? damaged(p, "its end is missing") : parse_entry(p, f, &at);
	return err == DB_OK ? parse_end(p, f, at, checksum) : err;
}

enum db_err token_file_parse(struct token_file *out, const char *text, size_t len, const uint8_t cluster_id[16],
			     const char *path, struct errmsg *em)
{
	struct parser p = {.path = path, .line = 1, .em = em};
	enum db_err err;

	*out = (struct token_file){0};
	if (len > FILE_BYTES_MAX || memchr(text, '\0', len) != NULL)
		return damaged(&p, "it is no text, or too long");
	p.text = strndup(text, len);
	if (p.text == NULL)
		return errmsg_set(em, DB_NOMEM, "out of memory for the tokens");
	err = parse_text(&p, out, cluster_id);
	free(p.text);
	if (err != DB_OK)
		token_file_fini(out);
	return err;
}

/* ---- files */

static enum db_err read_all(struct buf *out, const char *path, struct errmsg *em)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum db_err err = DB_OK;
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return errmsg_set(em, DB_NOTFOUND, "there is no \"%s\"", path);
	if (fd < 0)
		return errmsg_errno(em, errno, "cannot open \"%s\"", path);
	do {
		if (!buf_reserve(out, 4096)) {
			err = errmsg_set(em, DB_NOMEM, "out of memory for \"%s\"", path);
			break;
		}
		n = read(fd, out->data + out->len, 4096);
		if (n < 0 && errno != EINTR)
			err = errmsg_errno(em, errno, "cannot read \"%s\"", path);
		out->len += n > 0 ? (size_t)n : 0;
	} while (err == DB_OK && n != 0 && out->len <= FILE_BYTES_MAX);
	close(fd);
	return err;
}

enum db_err token_file_load(struct token_file *out, const char *path, const uint8_t cluster_id[16], struct errmsg *em)
{
	struct buf text = {0};
	enum db_err err = read_all(&text, path, em);

	*out = (struct token_file){0};
	if (err == DB_OK)
		err =
		    token_file_parse(out, text.len > 0 ? (const char *)text.data : "", text.len, cluster_id, path, em);
	buf_fini(&text);
	return err;
}

static enum db_err write_new(const struct buf *text, const char *path, struct errmsg *em)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	size_t written = 0;
	ssize_t n;
	int rc;

	if (fd < 0)
		return errmsg_errno(em, errno, "cannot create \"%s\"", path);
	rc = fchmod(fd, 0600) != 0 ? errno : 0;
	while (rc == 0 && written < text->len) {
		n = write(fd, text->data + written, text->len - written);
		if (n < 0 && errno != EINTR)
			rc = errno;
		written += n > 0 ? (size_t)n : 0;
	}
	if (rc == 0 && fsync(fd) != 0)
		rc = errno;
	if (close(fd) != 0 && rc == 0)
		rc = errno;
	return rc == 0 ? DB_OK : errmsg_errno(em, rc, "cannot write \"%s\"", path);
}

static enum db_err sync_directory(struct errmsg *em)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) != 0 ? errno : 0;

	if (fd >= 0)
		close(fd);
	return rc == 0 ? DB_OK : errmsg_errno(em, rc, "cannot sync the data directory");
}

enum db_err token_file_store(struct token_file *f, const char *path, const uint8_t cluster_id[16], struct errmsg *em)
{
	char temporary[256];
	struct buf text = {0};
	enum db_err err = DB_OK;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	token_file_put(&text, f, cluster_id);
	if (text.failed)
		err = errmsg_set(em, DB_NOMEM, "out of memory for \"%s\"", path);
	if (err == DB_OK)
		err = write_new(&text, temporary, em);
	if (err == DB_OK && rename(temporary, path) != 0)
		err = errmsg_errno(em, errno, "cannot rename \"%s\"", temporary);
	if (err != DB_OK)
		unlink(temporary);
	if (err == DB_OK)
		err = sync_directory(em);
	buf_fini(&text);
	return err;
}

enum db_err token_file_lock(int *fd, struct errmsg *em)
{
	*fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return errmsg_errno(em, errno, "cannot open the data directory");
	while (flock(*fd, LOCK_EX) != 0) {
		if (errno == EINTR)
			continue;
		close(*fd);
		*fd = -1;
		return errmsg_errno(em, errno, "cannot lock the data directory");
	}
	return DB_OK;
}
