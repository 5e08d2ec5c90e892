/*
 * auth_cost.c - what looking at a request's token costs: nanoseconds a check, for a connection that sends the same token
 * again and for one that the process has never seen. One JSON line.
 *
 * Exit: 0 ran, 1 failed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/auth/auth.h"
#include "common/base/clock.h"

#define TOKENS     1000
#define REMEMBERED 5000000
#define AFRESH     20000

static const uint8_t cluster_id[16] = "auth_cost";

static int fail(const struct errmsg *em)
{
	fprintf(stderr, "auth_cost: %s\n", em->text);
	return 1;
}

/* As many tokens as a file may have; the last one of them in token. */
static enum db_err fill(struct auth *a, char token[TOKEN_TEXT_LEN + 1], struct errmsg *em)
{
	struct token_entry entry = {.role = AUTH_READ};
	struct token_file f = {0};
	enum db_err err = DB_OK;
	struct buf text = {0};
	int i;

	for (i = 0; i < TOKENS && err == DB_OK; i++) {
		snprintf(entry.name, sizeof(entry.name), "client%d", i);
		err = token_file_add(&f, &entry, cluster_id, token, em);
	}
	token_file_put(&text, &f, cluster_id); /* names the version of the file */
	if (err == DB_OK)
		auth_set_file(a, &f);
	token_file_fini(&f);
	buf_fini(&text);
	return err;
}

static double each_ns(uint64_t began_us, unsigned count)
{
	return (double)(clock_mono_us() - began_us) * 1000.0 / count;
}

static int measure(struct auth *a, const char *token)
{
	struct auth_memo memo = {0};
	char name[TOKEN_NAME_MAX + 1];
	unsigned i, refused = 0;
	double afresh_ns, remembered_ns;
	uint64_t began_us = clock_mono_us();

	for (i = 0; i < AFRESH; i++) {
		memset(&memo, 0, sizeof(memo));
		refused += auth_check(a, &memo, token, TOKEN_TEXT_LEN, true, name) != AUTH_OK;
	}
	afresh_ns = each_ns(began_us, AFRESH);
	began_us = clock_mono_us();
	for (i = 0; i < REMEMBERED; i++)
		refused += auth_remembered(a, &memo, token, TOKEN_TEXT_LEN) != AUTH_READ;
	remembered_ns = each_ns(began_us, REMEMBERED);
	printf("{\"tokens\":%d,\"remembered_ns\":%.1f,\"afresh_ns\":%.1f,\"refused\":%u}\n", TOKENS, remembered_ns,
	       afresh_ns, refused);
	return refused == 0 ? 0 : 1;
}

int main(void)
{
	char token[TOKEN_TEXT_LEN + 1] = "";
	struct errmsg em = {0};
	struct auth *a;
	int status;

	if (auth_create(&a, cluster_id, &em) != DB_OK)
		return fail(&em);
	status = fill(a, token, &em) == DB_OK ? measure(a, token) : fail(&em);
	auth_free(a);
	return status;
}
