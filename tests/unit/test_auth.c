/* test_auth.c - the tokens file, what a token is worth and for how long, and how wrong ones are slowed down. */
#include "common/auth/auth.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/auth/throttle.h"
#include "common/base/clock.h"
#include "tests/unit/unit.h"

static const uint8_t here[16] = {1, 2, 3}, elsewhere[16] = {3, 2, 1};

#define FIRST "the-first-token-of-all"

/* ---- the file */

static void add(struct token_file *f, const char *name, enum auth_role role, uint64_t expires_us,
		char token[TOKEN_TEXT_LEN + 1])
{
	struct token_entry like = {.role = role, .created_us = 1700000000000000, .expires_us = expires_us};
	struct errmsg em = {0};

	snprintf(like.name, sizeof(like.name), "%s", name);
	UNIT_OK(token_file_add(f, &like, here, token, &em), &em);
}

static void test_golden_bytes(void)
{
	static const char expected[] = "grizzly-tokens 1 01020300000000000000000000000000\n"
				       "0123456789ab write 5 0 00000000000000000000000000000000 "
				       "0101010101010101010101010101010101010101010101010101010101010101 ab.c-D_9\n"
				       "end 1 ";
	struct token_entry e = {.id = "0123456789ab", .name = "ab.c-D_9", .role = AUTH_WRITE, .created_us = 5};
	struct token_file f = {&e, 1, 0}, read;
	struct buf out = {0};
	struct errmsg em = {0};

	memset(e.hash, 1, sizeof(e.hash));
	token_file_put(&out, &f, here);
	CU_ASSERT_FATAL(out.len == sizeof(expected) - 1 + 17);
	CU_ASSERT_EQUAL(memcmp(out.data, expected, sizeof(expected) - 1), 0);
	UNIT_OK(token_file_parse(&read, (const char *)out.data, out.len, here, "tokens", &em), &em);
	CU_ASSERT_EQUAL(read.count, 1);
	CU_ASSERT_EQUAL(read.checksum, f.checksum);
	CU_ASSERT_EQUAL(memcmp(&read.entries[0], &e, sizeof(e)), 0);
	token_file_fini(&read);
	buf_fini(&out);
}

/* Computed with Python's hmac module. */
static void test_hash_is_hmac_sha256(void)
{
	static const uint8_t expected[TOKEN_HASH_SIZE] = {
	    0x53, 0x1f, 0x88, 0x02, 0x5f, 0x14, 0x3a, 0xb1, 0xea, 0x9c, 0xc3, 0x6b, 0xdb, 0x56, 0xf5, 0x0d,
	    0x9e, 0x94, 0x0b, 0xb8, 0x78, 0xe5, 0x20, 0x0e, 0xf1, 0xb9, 0xd0, 0x37, 0x2c, 0x9f, 0xb1, 0x2f};
	uint8_t salt[TOKEN_SALT_SIZE], hash[TOKEN_HASH_SIZE], other[TOKEN_HASH_SIZE];
	char longest[TOKEN_LEN_MAX + 1];
	size_t i;

	for (i = 0; i < sizeof(salt); i++)
		salt[i] = (uint8_t)i;
	CU_ASSERT_EQUAL(token_hash(hash, salt, here, FIRST, strlen(FIRST)), DB_OK);
	CU_ASSERT_EQUAL(memcmp(hash, expected, sizeof(hash)), 0);
	CU_ASSERT_EQUAL(token_hash(other, salt, elsewhere, FIRST, strlen(FIRST)), DB_OK);
	CU_ASSERT_NOT_EQUAL(memcmp(hash, other, sizeof(hash)), 0);
	salt[0] ^= 1;
	CU_ASSERT_EQUAL(token_hash(other, salt, here, FIRST, strlen(FIRST)), DB_OK);
	CU_ASSERT_NOT_EQUAL(memcmp(hash, other, sizeof(hash)), 0);
	memset(longest, 'x', sizeof(longest));
	CU_ASSERT_EQUAL(token_hash(hash, salt, here, longest, TOKEN_LEN_MAX), DB_OK);
	CU_ASSERT_EQUAL(token_hash(hash, salt, here, longest, TOKEN_LEN_MAX + 1), DB_INVALID);
}

/* Any byte changed, any cut: an error that names the file, and an empty list. */
static void test_damage_is_always_seen(void)
{
	char token[TOKEN_TEXT_LEN + 1];
	struct token_file f = {0}, read;
	struct buf out = {0};
	struct errmsg em = {0};
	enum db_err err;
	size_t i;
	int bit;

	add(&f, "one", AUTH_READ, 0, token);
	add(&f, "two", AUTH_ADMIN, 99, token);
	token_file_put(&out, &f, here);
	for (i = 0; i < out.len; i++) {
		for (bit = 0; bit < 8; bit++) {
			out.data[i] ^= (uint8_t)(1 << bit);
			err = token_file_parse(&read, (const char *)out.data, out.len, here, "tokens", &em);
			CU_ASSERT(err == DB_CORRUPT || err == DB_INVALID);
			CU_ASSERT(read.count == 0 && read.entries == NULL);
			CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "tokens"));
			out.data[i] ^= (uint8_t)(1 << bit);
		}
		CU_ASSERT_EQUAL(token_file_parse(&read, (const char *)out.data, i, here, "tokens", &em), DB_CORRUPT);
	}
	buf_puts(&out, "\n");
	CU_ASSERT_EQUAL(token_file_parse(&read, (const char *)out.data, out.len, here, "tokens", &em), DB_CORRUPT);
	buf_fini(&out);
	token_file_fini(&f);
}

static void test_files_of_others_are_refused(void)
{
	static const char newer[] = "grizzly-tokens 2 01020300000000000000000000000000\nwhatever it may hold\n";
	struct token_file f = {0}, read;
	struct buf out = {0};
	struct errmsg em = {0};

	token_file_put(&out, &f, elsewhere);
	CU_ASSERT_EQUAL(token_file_parse(&read, (const char *)out.data, out.len, here, "tokens", &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "another cluster"));
	CU_ASSERT_EQUAL(token_file_parse(&read, newer, strlen(newer), here, "tokens", &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "format 2"));
	buf_fini(&out);
}

static void test_file_is_replaced_whole_and_private(void)
{
	char dir[UNIT_PATH_MAX], before[UNIT_PATH_MAX], token[TOKEN_TEXT_LEN + 1], text[4096];
	struct token_file f = {0}, read;
	struct errmsg em = {0};
	struct stat st;
	FILE *file;
	size_t len;
	int lock;

	unit_tmpdir(dir);
	CU_ASSERT_PTR_NOT_NULL_FATAL(getcwd(before, sizeof(before)));
	CU_ASSERT_EQUAL_FATAL(chdir(dir), 0);
	CU_ASSERT_EQUAL(token_file_load(&read, "tokens", here, &em), DB_NOTFOUND);
	add(&f, "one", AUTH_READ, 0, token);
	UNIT_OK(token_file_lock(&lock, &em), &em);
	UNIT_OK(token_file_store(&f, "tokens", here, &em), &em);
	close(lock);
	CU_ASSERT(stat("tokens", &st) == 0 && (st.st_mode & 07777) == 0600);
	CU_ASSERT(access("tokens.new", F_OK) != 0);
	file = fopen("tokens", "r");
	len = fread(text, 1, sizeof(text) - 1, file);
	text[len] = '\0';
	fclose(file);
	CU_ASSERT_PTR_NULL(strstr(text, token + 16)); /* the secret */
	UNIT_OK(token_file_load(&read, "tokens", here, &em), &em);
	CU_ASSERT(read.count == 1 && strcmp(read.entries[0].name, "one") == 0);
	token_file_fini(&read);
	/* A file that cannot be written leaves the old one. */
	CU_ASSERT_EQUAL(mkdir("tokens.new", 0700), 0);
	UNIT_OK(token_file_remove(&f, "one", &em), &em);
	CU_ASSERT_NOT_EQUAL(token_file_store(&f, "tokens", here, &em), DB_OK);
	UNIT_OK(token_file_load(&read, "tokens", here, &em), &em);
	CU_ASSERT_EQUAL(read.count, 1);
	token_file_fini(&read);
	token_file_fini(&f);
	CU_ASSERT_EQUAL(rmdir("tokens.new"), 0);
	unlink("tokens");
	CU_ASSERT_EQUAL_FATAL(chdir(before), 0);
}

static void test_names(void)
{
	static const char *const bad[] = {"", "a b", "a\n", "-role", "a/b", "\xc3\xa4", "a\"b"};
	struct token_entry like = {.role = AUTH_READ};
	char token[TOKEN_TEXT_LEN + 1];
	struct token_file f = {0};
	struct errmsg em = {0};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(like.name, sizeof(like.name), "%s", bad[i]);
		CU_ASSERT_EQUAL(token_file_add(&f, &like, here, token, &em), DB_INVALID);
	}
	add(&f, "a", AUTH_READ, 0, token);
	strcpy(like.name, "a");
	CU_ASSERT_EQUAL(token_file_add(&f, &like, here, token, &em), DB_EXISTS);
	CU_ASSERT_EQUAL(token[0], '\0');
	CU_ASSERT_EQUAL(token_file_remove(&f, "b", &em), DB_NOTFOUND);
	UNIT_OK(token_file_remove(&f, "a", &em), &em);
	CU_ASSERT_EQUAL(f.count, 0);
	for (i = 0; i < TOKEN_FILE_MAX; i++) {
		snprintf(like.name, sizeof(like.name), "n%zu", i);
		UNIT_OK(token_file_add(&f, &like, here, token, &em), &em);
	}
	strcpy(like.name, "one-more");
	CU_ASSERT_EQUAL(token_file_add(&f, &like, here, token, &em), DB_FULL);
	token_file_fini(&f);
}

/* ---- the check */

static enum auth_role check(struct auth *a, struct auth_memo *memo, const char *token, bool loopback,
			    enum auth_verdict expected)
{
	char name[TOKEN_NAME_MAX + 1];
	enum auth_role remembered = auth_remembered(a, memo, token, strlen(token));

	if (remembered != AUTH_NONE)
		return remembered;
	CU_ASSERT_EQUAL(auth_check(a, memo, token, strlen(token), loopback, name), expected);
	CU_ASSERT_EQUAL(name[0] != '\0', expected == AUTH_EXPIRED);
	return memo->role;
}

static void test_roles_of_tokens(void)
{
	char read[TOKEN_TEXT_LEN + 1], write[TOKEN_TEXT_LEN + 1], admin[TOKEN_TEXT_LEN + 1], wrong[TOKEN_TEXT_LEN + 1];
	struct auth_memo memo = {0};
	struct token_file f = {0};
	struct errmsg em = {0};
	struct auth *a;
	size_t i;

	UNIT_OK(auth_create(&a, here, &em), &em);
	CU_ASSERT_EQUAL(check(a, &memo, FIRST, true, AUTH_UNKNOWN), AUTH_NONE); /* nothing is accepted by itself */
	CU_ASSERT_EQUAL(check(a, &memo, "", true, AUTH_UNKNOWN), AUTH_NONE);
	UNIT_OK(auth_set_first(a, FIRST, &em), &em);
	add(&f, "r", AUTH_READ, 0, read);
	add(&f, "w", AUTH_WRITE, 0, write);
	add(&f, "a", AUTH_ADMIN, 0, admin);
	auth_set_file(a, &f);
	CU_ASSERT_EQUAL(auth_token_count(a), 3);
	CU_ASSERT_EQUAL(check(a, &memo, FIRST, false, AUTH_OK), AUTH_ADMIN);
	CU_ASSERT_EQUAL(check(a, &memo, read, false, AUTH_OK), AUTH_READ);
	CU_ASSERT_EQUAL(check(a, &memo, write, false, AUTH_OK), AUTH_WRITE);
	CU_ASSERT_EQUAL(check(a, &memo, admin, false, AUTH_OK), AUTH_ADMIN);
	/* The id of one with the secret of another, each character of a right one wrong, cut and prolonged ones. */
	memcpy(wrong, admin, sizeof(wrong));
	memcpy(wrong + 16, read + 16, TOKEN_SECRET_LEN);
	CU_ASSERT_EQUAL(check(a, &memo, wrong, true, AUTH_UNKNOWN), AUTH_NONE);
	for (i = 0; i < TOKEN_TEXT_LEN; i++) {
		memcpy(wrong, admin, sizeof(wrong));
		wrong[i] = wrong[i] == '0' ? '1' : '0';
		CU_ASSERT_EQUAL(check(a, &memo, wrong, true, AUTH_UNKNOWN), AUTH_NONE);
		wrong[i] = '\0';
		CU_ASSERT_EQUAL(check(a, &memo, wrong, true, AUTH_UNKNOWN), AUTH_NONE);
	}
	CU_ASSERT_EQUAL(check(a, &memo, FIRST "x", true, AUTH_UNKNOWN), AUTH_NONE);
	auth_free(a);
}

static void test_revoked_tokens_void_memos(void)
{
	char token[TOKEN_TEXT_LEN + 1], kept[TOKEN_TEXT_LEN + 1];
	struct auth_memo memo = {0}, other = {0};
	struct token_file f = {0};
	struct errmsg em = {0};
	struct auth *a;

	UNIT_OK(auth_create(&a, here, &em), &em);
	UNIT_OK(auth_set_first(a, FIRST, &em), &em);
	add(&f, "gone", AUTH_WRITE, 0, token);
	add(&f, "kept", AUTH_READ, 0, kept);
	auth_set_file(a, &f);
	CU_ASSERT_EQUAL(check(a, &memo, token, true, AUTH_OK), AUTH_WRITE);
	CU_ASSERT_EQUAL(auth_remembered(a, &memo, token, TOKEN_TEXT_LEN), AUTH_WRITE);
	CU_ASSERT_EQUAL(auth_remembered(a, &memo, kept, TOKEN_TEXT_LEN), AUTH_NONE);
	CU_ASSERT_EQUAL(auth_remembered(a, &memo, token, TOKEN_TEXT_LEN - 1), AUTH_NONE);
	CU_ASSERT_EQUAL(auth_remembered(a, &other, token, TOKEN_TEXT_LEN), AUTH_NONE);
	auth_set_file(a, &f); /* f is empty now */
	CU_ASSERT_EQUAL(auth_remembered(a, &memo, token, TOKEN_TEXT_LEN), AUTH_NONE);
	CU_ASSERT_EQUAL(check(a, &memo, token, true, AUTH_UNKNOWN), AUTH_NONE);
	CU_ASSERT_EQUAL(check(a, &memo, FIRST, true, AUTH_OK), AUTH_ADMIN);
	UNIT_OK(auth_set_first(a, "another-first-token", &em), &em);
	CU_ASSERT_EQUAL(check(a, &memo, FIRST, true, AUTH_UNKNOWN), AUTH_NONE);
	auth_free(a);
}

static void test_expired_tokens(void)
{
	char past[TOKEN_TEXT_LEN + 1], future[TOKEN_TEXT_LEN + 1];
	struct auth_memo memo = {0};
	struct token_file f = {0};
	struct errmsg em = {0};
	struct auth *a;

	UNIT_OK(auth_create(&a, here, &em), &em);
	add(&f, "past", AUTH_ADMIN, clock_wall_us() - 1, past);
	add(&f, "future", AUTH_READ, clock_wall_us() + 3600000000, future);
	auth_set_file(a, &f);
	CU_ASSERT_EQUAL(check(a, &memo, past, true, AUTH_EXPIRED), AUTH_NONE);
	CU_ASSERT_EQUAL(check(a, &memo, future, true, AUTH_OK), AUTH_READ);
	memo.expires_us = clock_wall_us(); /* the hour has passed on a connection that is kept alive */
	CU_ASSERT_EQUAL(auth_remembered(a, &memo, future, TOKEN_TEXT_LEN), AUTH_NONE);
	auth_free(a);
}

static void test_well_known_token_on_loopback_only(void)
{
	struct auth_memo memo = {0};
	struct errmsg em = {0};
	struct auth *a;

	UNIT_OK(auth_create(&a, here, &em), &em);
	UNIT_OK(auth_set_first(a, FIRST, &em), &em);
	CU_ASSERT_EQUAL(check(a, &memo, AUTH_WELL_KNOWN, true, AUTH_UNKNOWN), AUTH_NONE);
	UNIT_OK(auth_set_first(a, AUTH_WELL_KNOWN, &em), &em);
	CU_ASSERT_EQUAL(check(a, &memo, AUTH_WELL_KNOWN, false, AUTH_NOT_HERE), AUTH_NONE);
	CU_ASSERT_EQUAL(check(a, &memo, AUTH_WELL_KNOWN, true, AUTH_OK), AUTH_ADMIN);
	auth_free(a);
}

static void test_role_names(void)
{
	enum auth_role role;

	CU_ASSERT(auth_role_parse("read", &role) && role == AUTH_READ);
	CU_ASSERT(auth_role_parse("write", &role) && role == AUTH_WRITE);
	CU_ASSERT(auth_role_parse("admin", &role) && role == AUTH_ADMIN);
	CU_ASSERT(!auth_role_parse("none", &role) && !auth_role_parse("", &role) && !auth_role_parse("Admin", &role));
	CU_ASSERT(AUTH_NONE < AUTH_READ && AUTH_READ < AUTH_WRITE && AUTH_WRITE < AUTH_ADMIN);
}

/* ---- the throttle */

static struct throttle_address address(const char *text)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	struct throttle_address out;

	if (inet_pton(AF_INET, text, &four.sin_addr) == 1)
		CU_ASSERT(throttle_address_of(&out, (struct sockaddr *)&four));
	if (inet_pton(AF_INET6, text, &six.sin6_addr) == 1)
		CU_ASSERT(throttle_address_of(&out, (struct sockaddr *)&six));
	return out;
}

static void test_flood_is_slowed_and_others_are_not(void)
{
	struct throttle_address bad = address("10.0.0.1"), good = address("10.0.0.2");
	struct throttle *t = throttle_create(7);
	struct throttle_verdict v;
	uint64_t last_ms = 0;
	unsigned i, waiting = 0;

	for (i = 0; i < 10000; i++) {
		v = throttle_failed(t, &bad, 1000);
		CU_ASSERT(v.delay_ms >= last_ms && v.delay_ms <= THROTTLE_DELAY_MAX_MS);
		CU_ASSERT_EQUAL(v.delay_ms > 0, i >= THROTTLE_FREE);
		waiting += v.delay_ms > 0 && !v.refuse;
		CU_ASSERT_EQUAL(v.refuse, i >= THROTTLE_FREE + THROTTLE_WAITING_MAX);
		CU_ASSERT_EQUAL(v.failures, i + 1);
		last_ms = v.delay_ms;
	}
	CU_ASSERT_EQUAL(waiting, THROTTLE_WAITING_MAX);
	CU_ASSERT_EQUAL(last_ms, THROTTLE_DELAY_MAX_MS);
	v = throttle_failed(t, &good, 1000);
	CU_ASSERT(v.delay_ms == 0 && !v.refuse && v.failures == 1);
	/* A place that has been answered is free again, and with time all is forgiven. */
	throttle_answered(t, &bad);
	CU_ASSERT(!throttle_failed(t, &bad, 1000).refuse);
	v = throttle_failed(t, &bad, 1000 + 60000);
	CU_ASSERT(v.delay_ms == 0 && !v.refuse);
	throttle_free(t);
}

static void test_one_failure_a_second_is_free(void)
{
	struct throttle_address a = address("2001:db8::1");
	struct throttle *t = throttle_create(7);
	unsigned i;

	for (i = 0; i < 1000; i++)
		CU_ASSERT_EQUAL(throttle_failed(t, &a, 5000 + i * 1000).delay_ms, 0);
	throttle_free(t);
}

static void test_addresses(void)
{
	struct throttle_address a = address("2001:db8::1"), b = address("2001:db8::ffff:2"),
				c = address("2001:db8:0:1::1");
	struct throttle_address four = address("10.0.0.1"), mapped = address("::ffff:10.0.0.1");
	struct sockaddr local = {.sa_family = AF_UNIX};

	CU_ASSERT_EQUAL(memcmp(&a, &b, sizeof(a)), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(&a, &c, sizeof(a)), 0);
	CU_ASSERT_EQUAL(memcmp(&four, &mapped, sizeof(four)), 0);
	CU_ASSERT(!throttle_address_of(&a, &local));
}

static void test_log_lines_are_few(void)
{
	struct throttle *t = throttle_create(7);
	struct throttle_address a = address("10.0.0.1");
	struct throttle_verdict v;
	unsigned i, lines = 0;
	uint64_t left_out = 0;

	for (i = 0; i < 1000; i++)
		lines += throttle_failed(t, &a, 2000).log;
	CU_ASSERT_EQUAL(lines, 4); /* the 1st, 10th, 100th, 1000th */
	lines = 0;
	for (i = 0; i < 5000; i++) { /* every one a new address */
		a.bytes[12] = (uint8_t)(20 + i / 256);
		a.bytes[13] = (uint8_t)i;
		v = throttle_failed(t, &a, 10000);
		lines += v.log;
	}
	CU_ASSERT_EQUAL(lines, THROTTLE_LINES_MAX);
	a.bytes[12] = 250;
	v = throttle_failed(t, &a, 12000);
	left_out = v.not_shown;
	CU_ASSERT(v.log && left_out >= 5000 - THROTTLE_LINES_MAX);
	throttle_free(t);
}

/* Far more addresses than places, with answers waiting: what is forgotten stays harmless. */
static void test_forgotten_addresses(void)
{
	struct throttle *t = throttle_create(7);
	struct throttle_address a = address("10.0.0.1");
	unsigned i, k;

	for (i = 0; i < 20000; i++) {
		memcpy(a.bytes + 12, &i, sizeof(i));
		for (k = 0; k < THROTTLE_FREE + 2; k++)
			throttle_failed(t, &a, 1000 + i);
	}
	for (i = 0; i < 20000; i++) {
		memcpy(a.bytes + 12, &i, sizeof(i));
		throttle_answered(t, &a);
		throttle_answered(t, &a);
		throttle_answered(t, &a);
	}
	CU_ASSERT(!throttle_failed(t, &a, 1000000).refuse);
	throttle_free(t);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"golden bytes of the tokens file", test_golden_bytes},
	    {"the hash is HMAC-SHA256", test_hash_is_hmac_sha256},
	    {"damage is always seen", test_damage_is_always_seen},
	    {"files of other clusters and formats are refused", test_files_of_others_are_refused},
	    {"the file is replaced whole and private", test_file_is_replaced_whole_and_private},
	    {"names", test_names},
	    {"role names", test_role_names},
	    {"roles of tokens, and what is no token", test_roles_of_tokens},
	    {"revoked tokens void memos", test_revoked_tokens_void_memos},
	    {"expired tokens", test_expired_tokens},
	    {"the well-known token works on loopback only", test_well_known_token_on_loopback_only},
	    {"a flood is slowed and others are not", test_flood_is_slowed_and_others_are_not},
	    {"one failure a second is free", test_one_failure_a_second_is_free},
	    {"addresses", test_addresses},
	    {"log lines are few", test_log_lines_are_few},
	    {"forgotten addresses", test_forgotten_addresses},
	    {NULL, NULL},
	};

	return unit_run("auth", tests);
}
