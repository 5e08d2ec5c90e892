/* test_remote_access.c - which addresses may be asked, and that no token goes to one that was not configured. */
#include "common/remote/remote_access.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/unit.h"

#define OWN_TOKEN "the-clusters-own-token"

static void write_token(const char *path, const char *token)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fprintf(f, "%s\n", token);
	CU_ASSERT_EQUAL(fclose(f), 0);
}

static void configure(struct cluster_config *c, const char *text)
{
	struct errmsg em = {0};

	config_init(c);
	UNIT_OK(config_parse(c, text, strlen(text), "test", &em), &em);
}

/* expected: the token, "" for an address that is asked without, NULL for one that is not allowed. */
static void assert_token(struct remote_access *a, const char *address, const char *expected)
{
	char token[REMOTE_TOKEN_MAX] = "before";
	struct errmsg em = {0};
	enum db_err err = remote_access_token(a, address, token, &em);

	CU_ASSERT_EQUAL(err, expected == NULL ? DB_INVALID : DB_OK);
	CU_ASSERT_STRING_EQUAL(token, expected == NULL ? "" : expected);
	if (err != (expected == NULL ? DB_INVALID : DB_OK))
		fprintf(stderr, "%s: %s\n", address, em.text);
	if (expected == NULL)
		CU_ASSERT_PTR_NOT_NULL(strstr(em.text, address));
}

static void test_patterns(void)
{
	static const struct {
		const char *pattern, *address;
		bool fits;
	} cases[] = {
	    {"h:80", "h:80", true},
	    {"h:80", "h:81", false},
	    {"h:*", "h:81", true},
	    {"h:80", "hh:80", false},
	    {"*:80", "anything.at.all:80", true},
	    {"*.example.org:80", "a.example.org:80", true},
	    {"*.example.org:80", "a.b.example.org:80", true},
	    {"*.example.org:80", "example.org:80", false},
	    {"*.example.org:80", "a.example.org.evil.com:80", false},
	    {"*.example.org:80", "aexample.org:80", false},
	    {"10.0.0.*:80", "10.0.0.7:80", true},
	    {"10.0.0.*:80", "10.0.1.7:80", false},
	    {"10.0.0.*:80", "10.0.0.evil.com:80", false},
	    {"10.*:80", "10.evil:80", false},
	    {"10.0.0.*:80", "10.0.0.7.8:80", false},
	    {"[fd00::*]:80", "[fd00::1]:80", true},
	    {"[fd00::*]:80", "[fd01::1]:80", false},
	    {"[0:0::1]:80", "[::1]:80", true},
	    {"db*-*.x:80", "db1-a.x:80", true},
	    {"db*-*.x:80", "db1a.x:80", false},
	    {"*a*a*a*a*a*b:80", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:80", false},
	    {"h", "h:80", false},
	    {"h:80", "h", false},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CU_ASSERT_EQUAL(remote_access_matches(cases[i].pattern, cases[i].address), cases[i].fits);
		if (remote_access_matches(cases[i].pattern, cases[i].address) != cases[i].fits)
			fprintf(stderr, "%s %s\n", cases[i].pattern, cases[i].address);
	}
}

static void test_own_token_for_own_addresses_only(void)
{
	char dir[UNIT_PATH_MAX], own_path[UNIT_PATH_MAX + 8], token[REMOTE_TOKEN_MAX];
	struct remote_access *a;
	struct cluster_config c;
	struct errmsg em = {0};

	unit_tmpdir(dir);
	snprintf(own_path, sizeof(own_path), "%s/token", dir);
	write_token(own_path, OWN_TOKEN);
	configure(&c, "{\"http_port\": 8080, \"replicas\": 2}");
	UNIT_OK(remote_access_create(&a, &c, own_path, &em), &em);
	assert_token(a, "127.0.0.1:8080", OWN_TOKEN);
	assert_token(a, "127.0.0.1:8083", OWN_TOKEN);
	assert_token(a, "127.0.0.1:8084", "");
	assert_token(a, "localhost:8080", "");
	assert_token(a, "[::1]:8080", "");
	assert_token(a, "127.9.9.9:8080", "");
	assert_token(a, "10.0.0.1:8080", NULL);
	assert_token(a, "example.org:8080", NULL);
	assert_token(a, "localhost.example.org:8080", NULL);
	assert_token(a, "127.0.0.1.example.org:8080", NULL);
	assert_token(a, "2130706433:8080", NULL);
	assert_token(a, "0.0.0.0:8080", NULL);
	remote_access_free(a);
	configure(&c, "{\"http_port\": 8080, \"replicas\": 0, \"bind\": \"0.0.0.0\"}");
	UNIT_OK(remote_access_create(&a, &c, own_path, &em), &em);
	assert_token(a, "127.0.0.1:8081", OWN_TOKEN);
	assert_token(a, "127.0.0.1:8082", "");
	remote_access_free(a);
	configure(&c, "{\"http_port\": 8080, \"bind\": \"::\"}");
	UNIT_OK(remote_access_create(&a, &c, own_path, &em), &em);
	assert_token(a, "[::1]:8080", OWN_TOKEN);
	unlink(own_path);
	CU_ASSERT_EQUAL(remote_access_token(a, "[::1]:8080", token, &em), DB_NOTFOUND);
	CU_ASSERT_STRING_EQUAL(token, "");
	remote_access_free(a);
}

static void test_configured_tokens(void)
{
	static const char text[] =
	    "{\"remote\": {\"nodes\": {\"*.example.org:80\": {\"token_file\": \"%s/many\"}, \"db.example.org:80\": "
	    "{\"token_file\": \"%s/one\"}, \"127.0.0.1:8080\": {\"token_file\": \"%s/many\"}, \"gone:80\": "
	    "{\"token_file\": \"%s/gone\"}}, \"allow\": [\"open.example.com:*\"]}}";
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 8], json[4 * UNIT_PATH_MAX + 512], token[REMOTE_TOKEN_MAX];
	struct remote_access *a;
	struct cluster_config c;
	struct errmsg em = {0};

	unit_tmpdir(dir);
	snprintf(json, sizeof(json), text, dir, dir, dir, dir);
	configure(&c, json);
	snprintf(path, sizeof(path), "%s/many", dir);
	write_token(path, "token-of-the-many");
	snprintf(path, sizeof(path), "%s/one", dir);
	write_token(path, "token-of-the-one1");
	UNIT_OK(remote_access_create(&a, &c, "own_token", &em), &em);
	assert_token(a, "x.example.org:80", "token-of-the-many");
	assert_token(a, "db.example.org:80", "token-of-the-one1");
	assert_token(a, "127.0.0.1:8080", "token-of-the-many"); /* what is said goes before the default */
	assert_token(a, "x.example.org:81", NULL);
	assert_token(a, "open.example.com:9", "");
	/* A file that has changed is read again, one that is gone is an error and sends no old token. */
	write_token(path, "a-newer-token-of-one");
	assert_token(a, "db.example.org:80", "a-newer-token-of-one");
	unlink(path);
	CU_ASSERT_EQUAL(remote_access_token(a, "db.example.org:80", token, &em), DB_NOTFOUND);
	CU_ASSERT_STRING_EQUAL(token, "");
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "db.example.org:80"));
	CU_ASSERT_EQUAL(remote_access_token(a, "gone:80", token, &em), DB_NOTFOUND);
	write_token(path, "short");
	CU_ASSERT_EQUAL(remote_access_token(a, "db.example.org:80", token, &em), DB_IO);
	CU_ASSERT_STRING_EQUAL(token, "");
	remote_access_free(a);
}

/* ---- how they are asked */

static bool same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void assert_tls(struct remote_access *a, const char *address, bool member, struct client_tls expected)
{
	struct client_tls got;
	bool same;

	memset(&got, 0xff, sizeof(got));
	remote_access_tls(a, address, member, &got);
	same = got.on == expected.on && got.any_name == expected.any_name && same_text(got.ca_file, expected.ca_file) &&
	       same_text(got.cert_file, expected.cert_file) && same_text(got.key_file, expected.key_file);
	CU_ASSERT_TRUE(same);
	if (!same)
		fprintf(stderr, "%s: on %d, any name %d, CA %s, certificate %s\n", address, got.on, got.any_name,
			got.ca_file == NULL ? "-" : got.ca_file, got.cert_file == NULL ? "-" : got.cert_file);
}

#define NODES                                                                                                          \
	"\"remote\":{\"nodes\":{\"plain:80\":{\"token_file\":\"t\"},\"public:443\":{\"token_file\":\"t\",\"tls\":{}}," \
	"\"*.private:443\":{\"token_file\":\"t\",\"tls\":{\"ca_file\":\"their.pem\"}},"                                \
	"\"127.0.0.1:8082\":{\"token_file\":\"t\",\"tls\":{\"ca_file\":\"odd.pem\"}}},\"allow\":[\"open:*\"]}"

static void test_how_a_cluster_without_tls_asks(void)
{
	const struct client_tls off = {0};
	struct remote_access *a;
	struct cluster_config c;
	struct errmsg em = {0};

	configure(&c, "{\"http_port\": 8080, " NODES "}");
	UNIT_OK(remote_access_create(&a, &c, "own_token", &em), &em);
	assert_tls(a, "127.0.0.1:8080", false, off);
	assert_tls(a, "127.0.0.1:8081", true, off);
	assert_tls(a, "plain:80", false, off);
	assert_tls(a, "open:1", false, off);
	assert_tls(a, "nobody:1", false, off);
	assert_tls(a, "public:443", false, (struct client_tls){.on = true});
	assert_tls(a, "db.private:443", false, (struct client_tls){.on = true, .ca_file = "their.pem"});
	remote_access_free(a);
}

static void test_how_a_cluster_with_tls_asks(void)
{
	static const char *const wanted[] = {"none", "optional", "required"};
	struct client_tls own = {.on = true, .any_name = true, .ca_file = "ca.pem"};
	struct remote_access *a;
	struct cluster_config c;
	struct errmsg em = {0};
	char text[1024];
	size_t i;

	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		snprintf(text, sizeof(text),
			 "{\"http_port\":8080,\"tls\":{\"cert_file\":\"n.pem\",\"key_file\":\"n.key\",\"ca_file\":"
			 "\"ca.pem\",\"client_certificates\":\"%s\",\"client_ca_file\":\"%s\"}," NODES "}",
			 wanted[i], i > 0 ? "clients.pem" : "");
		configure(&c, text);
		UNIT_OK(remote_access_create(&a, &c, "own_token", &em), &em);
		own.cert_file = i > 0 ? "n.pem" : NULL;
		own.key_file = i > 0 ? "n.key" : NULL;
		assert_tls(a, "127.0.0.1:8080", false, own);
		assert_tls(a, "127.0.0.1:8081", false, own);
		assert_tls(a, "10.9.8.7:1", true, own); /* who says that it is a member knows */
		/* What is said of an address goes before what it is, but not for members among themselves. */
		assert_tls(a, "127.0.0.1:8082", false, (struct client_tls){.on = true, .ca_file = "odd.pem"});
		assert_tls(a, "127.0.0.1:8082", true, own);
		/* Ours is shown to nobody else, and nobody else's name is left unlooked at. */
		assert_tls(a, "public:443", false, (struct client_tls){.on = true});
		assert_tls(a, "db.private:443", false, (struct client_tls){.on = true, .ca_file = "their.pem"});
		assert_tls(a, "plain:80", false, (struct client_tls){0});
		assert_tls(a, "open:1", false, (struct client_tls){0});
		remote_access_free(a);
	}
	configure(&c, "{\"http_port\":8080,\"tls\":{\"cert_file\":\"n.pem\",\"key_file\":\"n.key\"}}");
	UNIT_OK(remote_access_create(&a, &c, "own_token", &em), &em);
	own = (struct client_tls){.on = true, .any_name = true, .ca_file = "n.pem"};
	assert_tls(a, "127.0.0.1:8083", true, own); /* without a CA: exactly this certificate */
	remote_access_free(a);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"patterns", test_patterns},
	    {"the own token goes to own addresses only", test_own_token_for_own_addresses_only},
	    {"configured tokens", test_configured_tokens},
	    {"how a cluster without TLS asks", test_how_a_cluster_without_tls_asks},
	    {"how a cluster with TLS asks", test_how_a_cluster_with_tls_asks},
	    {NULL, NULL},
	};

	return unit_run("remote_access", tests);
}
