/*
 * test_config.c - cluster.json and token files: defaults, comments, and what a wrong file is told.
 */
#include "common/base/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/config_show.h"
#include "tests/unit/unit.h"

static enum db_err parse(struct cluster_config *c, const char *text, struct errmsg *em)
{
	config_init(c);
	memset(em, 0, sizeof(*em));
	return config_parse(c, text, strlen(text), "cluster.json", em);
}

/* Expects a refusal whose message begins with the file's name and holds part. */
static void expect_refusal(const char *text, const char *part)
{
	struct cluster_config c;
	struct errmsg em;

	CU_ASSERT_EQUAL(parse(&c, text, &em), DB_INVALID);
	CU_ASSERT_EQUAL(strncmp(em.text, "cluster.json:", 13), 0);
	if (strstr(em.text, part) == NULL) {
		fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", text, em.text, part);
		CU_FAIL("the message does not say what is wrong");
	}
}

static void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "w");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(fwrite(bytes, 1, len, f), len);
	fclose(f);
}

static void in_tmpdir(char path[UNIT_PATH_MAX + 32], const char *name)
{
	char dir[UNIT_PATH_MAX];

	unit_tmpdir(dir);
	snprintf(path, UNIT_PATH_MAX + 32, "%s/%s", dir, name);
}

/* ---- reading */

static void an_empty_object_means_the_defaults(void)
{
	struct cluster_config c, defaults;
	struct errmsg em;

	config_init(&defaults);
	UNIT_OK(parse(&c, "{}", &em), &em);
	CU_ASSERT_EQUAL(memcmp(&c, &defaults, sizeof(c)), 0);
	CU_ASSERT_TRUE(c.replicas == 2 && c.http_port == 8080 && c.durability == DURABILITY_QUORUM);
	CU_ASSERT_TRUE(c.heartbeat.interval_ms == 100 && c.heartbeat.misses == 3 && c.remote.max_connections == 10);
	CU_ASSERT_TRUE(c.heartbeat.probe_ms == 1000 && c.heartbeat.stall_ms == 3000);
	CU_ASSERT_EQUAL(c.store.low_space_bytes, 64u << 20);
	CU_ASSERT_STRING_EQUAL(c.bind, "127.0.0.1");
}

static void every_key_reaches_its_field(void)
{
	static const char text[] =
	    "{\"cluster\": \"000102030405060708090a0b0c0d0e0F\", \"replicas\": 4, \"bind\": \"::1\", \"http_port\": "
	    "9000,"
	    "\"durability\": \"all\", \"commit_timeout_ms\": 1, \"heartbeat\": {\"interval_ms\": 50, \"misses\": 5,"
	    "\"probe_ms\": 60, \"stall_ms\": 700},"
	    "\"http\": {\"workers\": 8, \"body_bytes_max\": 1048576, \"connections_max\": 10,"
	    "\"address_connections_max\": 5, \"requests_bytes_max\": 70000,"
	    "\"request_timeout_ms\": 11, \"idle_timeout_ms\": 12},"
	    "\"query\": {\"timeout_ms\": 13, \"timeout_max_ms\": 14, \"sql_length_max\": 2048, \"statements_max\": 15,"
	    "\"inline_ops\": 1600, \"slow_threads\": 17, \"slow_queue_max\": 18, \"result_rows_max\": 20, "
	    "\"result_bytes_max\": 21, \"write_queue_max\": 19},"
	    "\"store\": {\"segment_size_bytes\": 131072, \"checkpoint_bytes\": 262144,"
	    "\"transaction_bytes_max\": 524288, \"keep_bytes\": 3221225472, \"low_space_bytes\": 0},"
	    "\"remote\": {\"max_connections\": 20, \"nodes\": {\"h:1\": {\"token_file\": \"t\"}}}}";
	struct cluster_config c;
	struct errmsg em;

	UNIT_OK(parse(&c, text, &em), &em);
	CU_ASSERT_TRUE(c.cluster_id[0] == 0 && c.cluster_id[15] == 0x0f && c.replicas == 4 && c.http_port == 9000);
	CU_ASSERT_STRING_EQUAL(c.bind, "::1");
	CU_ASSERT_TRUE(c.durability == DURABILITY_ALL && c.commit_timeout_ms == 1);
	CU_ASSERT_TRUE(c.heartbeat.interval_ms == 50 && c.heartbeat.misses == 5);
	CU_ASSERT_TRUE(c.heartbeat.probe_ms == 60 && c.heartbeat.stall_ms == 700 && c.store.low_space_bytes == 0);
	CU_ASSERT_TRUE(c.http.workers == 8 && c.http.body_bytes_max == 1048576 && c.http.connections_max == 10);
	CU_ASSERT_TRUE(c.http.address_connections_max == 5 && c.http.requests_bytes_max == 70000);
	CU_ASSERT_TRUE(c.query.result_rows_max == 20 && c.query.result_bytes_max == 21);
	CU_ASSERT_TRUE(c.http.request_timeout_ms == 11 && c.http.idle_timeout_ms == 12);
	CU_ASSERT_TRUE(c.query.timeout_ms == 13 && c.query.timeout_max_ms == 14 && c.query.sql_length_max == 2048);
	CU_ASSERT_TRUE(c.query.statements_max == 15 && c.query.inline_ops == 1600 && c.query.slow_threads == 17);
	CU_ASSERT_TRUE(c.query.slow_queue_max == 18 && c.query.write_queue_max == 19);
	CU_ASSERT_TRUE(c.store.segment_size_bytes == 131072 && c.store.checkpoint_bytes == 262144);
	CU_ASSERT_TRUE(c.store.transaction_bytes_max == 524288 && c.log.keep_bytes == 3221225472u);
	CU_ASSERT_EQUAL(c.remote.max_connections, 20);
}

static void comments_are_ignored_but_not_inside_strings(void)
{
	struct cluster_config c;
	struct errmsg em;

	UNIT_OK(parse(&c,
		      "// first\n{ /* \"replicas\": 9, */ \"replicas\": 1, // last \"\n"
		      "/* two\n * lines // \" */ \"http_port\": /**/ 9000 /* end */ } // done",
		      &em),
		&em);
	CU_ASSERT_TRUE(c.replicas == 1 && c.http_port == 9000);
	UNIT_OK(parse(&c, "{\"remote\": {\"nodes\": {\"h:1\": {\"token_file\": \"/a//b/*c*/\\\" // d\"}}}}", &em), &em);
	expect_refusal("{\"bind\": \"// not a comment\"}", "bind");
}

static void a_syntax_error_is_found_on_its_line(void)
{
	expect_refusal("{\n// comment\n/* two\nlines */\n\"replicas\" 1\n}", "cluster.json:5:");
	expect_refusal("{\"replicas\": 1, \"replicas\": 2}", "duplicate");
	expect_refusal("", "cluster.json:1:");
	expect_refusal("{} {}", "cluster.json:1:");
	expect_refusal("{\"replicas\": 1 /* never closed", "cluster.json:1:");
	expect_refusal("{\"bind\": \"never closed", "cluster.json:1:");
	expect_refusal("[]", "expected an object");
	expect_refusal("{\"bind\": \"\xff\"}", "0xff");
}

static void types_and_ranges_are_checked(void)
{
	expect_refusal("{\"replicas\": \"2\"}", "replicas: expected a whole number");
	expect_refusal("{\"replicas\": 2.0}", "replicas");
	expect_refusal("{\"replicas\": true}", "replicas");
	expect_refusal("{\"replicas\": -1}", "replicas");
	expect_refusal("{\"replicas\": 31}", "30");
	expect_refusal("{\"http_port\": 0}", "http_port");
	expect_refusal("{\"http_port\": 4294975376}", "http_port"); /* 8080 in its low 32 bits */
	expect_refusal("{\"commit_timeout_ms\": 99999999999999999999}", "cluster.json:1:");
	expect_refusal("{\"heartbeat\": {\"interval_ms\": 0}}", "heartbeat.interval_ms");
	expect_refusal("{\"heartbeat\": {\"stall_ms\": 99}}", "heartbeat.stall_ms");
	expect_refusal("{\"heartbeat\": 100}", "heartbeat: expected an object");
	expect_refusal("{\"heartbeat\": null}", "heartbeat");
	expect_refusal("{\"durability\": \"QUORUM\"}", "durability");
	expect_refusal("{\"durability\": 1}", "durability");
	expect_refusal("{\"cluster\": \"12\"}", "cluster");
	expect_refusal("{\"cluster\": \"00112233445566778899aabbccddeefg\"}", "cluster");
	expect_refusal("{\"query\": {\"timeout_ms\": 2000, \"timeout_max_ms\": 1000}}", "query.timeout_ms");
	expect_refusal("{\"store\": {\"segment_size_bytes\": 1}}", "store.segment_size_bytes");
}

static void tls_settings_go_together(void)
{
	struct cluster_config c;
	struct errmsg em;

	UNIT_OK(
	    parse(&c,
		  "{\"tls\": {\"cert_file\": \"c\", \"key_file\": \"k\", \"client_ca_file\": \"a\", "
		  "\"client_certificates\": \"required\"}, \"remote\": {\"nodes\": {\"h:1\": {\"token_file\": \"t\", "
		  "\"tls\": {\"ca_file\": \"r\"}}, \"h:2\": {\"token_file\": \"t\", \"tls\": {}}, "
		  "\"h:3\": {\"token_file\": \"t\"}}}}",
		  &em),
	    &em);
	CU_ASSERT_TRUE(config_has_tls(&c) && c.tls.client_certificates == CLIENT_CERTIFICATES_REQUIRED);
	CU_ASSERT_TRUE(c.remote.nodes[0].tls && strcmp(c.remote.nodes[0].ca_file, "r") == 0);
	CU_ASSERT_TRUE(c.remote.nodes[1].tls && c.remote.nodes[1].ca_file[0] == '\0');
	CU_ASSERT_FALSE(c.remote.nodes[2].tls);
	expect_refusal("{\"tls\": {\"cert_file\": \"c\"}}", "key_file");
	expect_refusal("{\"tls\": {\"ca_file\": \"c\"}}", "without cert_file");
	expect_refusal("{\"tls\": {\"cert_file\": \"c\", \"key_file\": 1}}", "tls.key_file");
	expect_refusal("{\"tls\": {\"cert_file\": \"c\", \"key_file\": \"k\", \"client_certificates\": \"optional\"}}",
		       "client_ca_file");
	expect_refusal("{\"tls\": {\"client_certificates\": \"maybe\"}}", "tls.client_certificates");
	expect_refusal("{\"tls\": {\"certfile\": \"c\"}}", "tls.certfile");
	expect_refusal("{\"insecure\": 1}", "insecure");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": {\"token_file\": \"t\", \"tls\": {\"ca\": \"r\"}}}}}",
		       "h:1.tls");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": {\"token_file\": \"t\", \"tls\": true}}}}", "h:1.tls");
}

static void links_of_one_host_use_files_unless_told_otherwise(void)
{
	static const char text[] = "{\"replication\": {\"local\": \"tcp\"}}";
	struct cluster_config c;
	struct buf shown = {0};
	struct errmsg em = {0};

	config_init(&c);
	CU_ASSERT_EQUAL(c.replication.local, REPLICATION_IPC);
	UNIT_OK(config_parse(&c, text, sizeof(text) - 1, "f", &em), &em);
	CU_ASSERT_EQUAL(c.replication.local, REPLICATION_TCP);
	config_put_json(&shown, &c);
	buf_printf(&shown, "%c", '\0');
	CU_ASSERT_PTR_NOT_NULL(strstr((const char *)shown.data, "\"local\": \"tcp\""));
	buf_fini(&shown);
	expect_refusal("{\"replication\": {\"local\": \"udp\"}}", "replication.local");
	expect_refusal("{\"replication\": {\"local\": 1}}", "replication.local");
	expect_refusal("{\"replication\": {\"remote\": \"tcp\"}}", "replication.remote");
	expect_refusal("{\"replication\": \"tcp\"}", "replication");
}

static void an_open_address_needs_tls_or_insecure(void)
{
	static const char *const closed[] = {"127.0.0.1", "127.9.9.9", "::1", "localhost"};
	static const char *const open[] = {"0.0.0.0", "::", "10.0.0.1", "192.0.2.1", "fe80::1"};
	struct cluster_config c;
	struct errmsg em = {0};
	size_t i;

	config_init(&c);
	for (i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
		snprintf(c.bind, sizeof(c.bind), "%s", closed[i]);
		UNIT_OK(config_check_exposure(&c, "f", &em), &em);
	}
	for (i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
		snprintf(c.bind, sizeof(c.bind), "%s", open[i]);
		CU_ASSERT_EQUAL(config_check_exposure(&c, "f", &em), DB_INVALID);
		CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "insecure"));
	}
	c.insecure = true;
	UNIT_OK(config_check_exposure(&c, "f", &em), &em);
	c.insecure = false;
	snprintf(c.tls.cert_file, sizeof(c.tls.cert_file), "c");
	UNIT_OK(config_check_exposure(&c, "f", &em), &em);
}

static void unknown_keys_are_named_with_their_path(void)
{
	expect_refusal("{\"heartbeat\": {\"intervall_ms\": 100}}", "heartbeat.intervall_ms");
	expect_refusal("{\"heartbeat\": {\"intervall_ms\": 100}}", "did you mean \"interval_ms\"");
	expect_refusal("{\"replica\": 2}", "\"replica\"");
	expect_refusal("{\"interval_ms\": 100}", "interval_ms"); /* at home in heartbeat only */
	expect_refusal("{\"heartbeat\": {\"replicas\": 1}}", "heartbeat.replicas");
	expect_refusal("{\"\": 1}", "\"\"");
}

static void bind_is_an_address_or_localhost(void)
{
	static const char *const good[] = {"0.0.0.0", "::", "::1", "localhost", "10.0.0.255", "fe80::1"};
	static const char *const bad[] = {"",      "example.org", "127.0.0",     "127.0.0.1:80",
					  "[::1]", "1.2.3.4.5",   "fe80::1%eth0"};
	struct cluster_config c;
	struct errmsg em;
	char text[64];
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text), "{\"bind\": \"%s\"}", good[i]);
		UNIT_OK(parse(&c, text, &em), &em);
		CU_ASSERT_STRING_EQUAL(c.bind, good[i]);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "{\"bind\": \"%s\"}", bad[i]);
		expect_refusal(text, "bind");
	}
}

static void all_ports_of_all_nodes_fit(void)
{
	struct cluster_config c;
	struct errmsg em;
	char text[64];

	/* the last ack port is http_port + 200 + 3 */
	snprintf(text, sizeof(text), "{\"replicas\": 2, \"http_port\": %d}", 65535 - 203);
	UNIT_OK(parse(&c, text, &em), &em);
	snprintf(text, sizeof(text), "{\"replicas\": 2, \"http_port\": %d}", 65535 - 202);
	expect_refusal(text, "http_port");
	snprintf(text, sizeof(text), "{\"replicas\": 3, \"http_port\": %d}", 65535 - 203);
	expect_refusal(text, "http_port");
}

static void remote_nodes_are_checked_for_their_shape(void)
{
	struct cluster_config c;
	struct errmsg em;

	UNIT_OK(parse(&c, "{\"remote\": {\"nodes\": {}}}", &em), &em);
	UNIT_OK(parse(&c, "{\"remote\": {\"nodes\": {\"[::1]:8080\": {\"token_file\": \"/etc/token\"}}}}", &em), &em);
	expect_refusal("{\"remote\": {\"nodes\": []}}", "remote.nodes");
	expect_refusal("{\"remote\": {\"nodes\": {\"host\": {\"token_file\": \"x\"}}}}", "host:port");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": {}}}}", "token_file");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": {\"token_file\": 7}}}}", "token_file");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": \"x\"}}}", "remote.nodes.h:1");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:1\": {\"token_file\": \"\"}}}}", "a path");
	expect_refusal("{\"remote\": {\"nodes\": {\"h:0\": {\"token_file\": \"x\"}}}}", "host:port");
	expect_refusal("{\"remote\": {\"nodes\": {\"::1:80\": {\"token_file\": \"x\"}}}}", "host:port");
	expect_refusal("{\"remote\": {\"nodes\": {\"h/x:80\": {\"token_file\": \"x\"}}}}", "host:port");
	expect_refusal("{\"remote\": {\"allow\": {}}}", "remote.allow");
	expect_refusal("{\"remote\": {\"allow\": [\"h:1\", \"h\"]}}", "item 2");
	UNIT_OK(parse(&c,
		      "{\"remote\": {\"nodes\": {\"*.Example.org:*\": {\"token_file\": \"a\"}, \"10.0.0.*:80\": "
		      "{\"token_file\": \"b\"}}, \"allow\": [\"[::2]:1\", \"H:1\"]}}",
		      &em),
		&em);
	CU_ASSERT_EQUAL(c.remote.node_count, 2);
	CU_ASSERT_STRING_EQUAL(c.remote.nodes[0].address, "*.example.org:*");
	CU_ASSERT_STRING_EQUAL(c.remote.nodes[1].token_file, "b");
	CU_ASSERT_EQUAL(c.remote.allow_count, 2);
	CU_ASSERT_STRING_EQUAL(c.remote.allow[1], "h:1");
}

/* A real file cut anywhere, and with every byte replaced in turn, parses or is refused with a reason. */
static void damaged_files_are_refused_and_nothing_worse(void)
{
	static const char text[] = "{ // c\n\"replicas\": 1, /* x */ \"bind\": \"::1\", \"http\": {\"workers\": 2} }";
	static const char junk[] = {'\0', '"', '\\', '/', '*', '{', '}', ',', '\xff', '9'};
	struct cluster_config c;
	struct errmsg em = {0};
	size_t i, k;
	char *copy;

	for (i = 0; i < sizeof(text); i++) {
		copy = malloc(i == 0 ? 1 : i); /* exact, so that AddressSanitizer sees a read beyond */
		CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
		memcpy(copy, text, i);
		config_init(&c);
		if (config_parse(&c, copy, i, "f", &em) != DB_OK)
			CU_ASSERT_EQUAL(strncmp(em.text, "f:", 2), 0);
		for (k = 0; k < i * sizeof(junk); k++) {
			char saved = copy[k / sizeof(junk)];

			copy[k / sizeof(junk)] = junk[k % sizeof(junk)];
			config_init(&c);
			if (i == sizeof(text) - 1 && config_parse(&c, copy, i, "f", &em) != DB_OK)
				CU_ASSERT_EQUAL(em.err, DB_INVALID);
			copy[k / sizeof(junk)] = saved;
		}
		free(copy);
	}
}

/* ---- addresses and quorum */

static void addresses_follow_the_port_plan(void)
{
	struct cluster_config c;
	struct errmsg em;
	char out[CONFIG_ADDRESS_MAX];

	UNIT_OK(parse(&c, "{\"http_port\": 8000}", &em), &em);
	config_endpoint_address(&c, out);
	CU_ASSERT_STRING_EQUAL(out, "127.0.0.1:8000");
	config_node_address(&c, 1, CONFIG_HTTP, out);
	CU_ASSERT_STRING_EQUAL(out, "127.0.0.1:8001");
	config_node_address(&c, 2, CONFIG_REPLICATION, out);
	CU_ASSERT_STRING_EQUAL(out, "127.0.0.1:8102");
	config_node_address(&c, 3, CONFIG_ACKS, out);
	CU_ASSERT_STRING_EQUAL(out, "127.0.0.1:8203");
	UNIT_OK(parse(&c, "{\"bind\": \"fe80:1111:2222:3333:4444:5555:6666:7777\"}", &em), &em);
	config_node_address(&c, 1, CONFIG_ACKS, out);
	CU_ASSERT_STRING_EQUAL(out, "[fe80:1111:2222:3333:4444:5555:6666:7777]:8281");
}

static void as_many_nodes_must_have_a_record_as_was_promised(void)
{
	static const struct {
		unsigned replicas, quorum;
	} cases[] = {{0, 1}, {1, 2}, {2, 2}, {3, 3}, {4, 3}, {30, 16}};
	struct cluster_config c;
	size_t i;

	config_init(&c);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		c.replicas = cases[i].replicas;
		CU_ASSERT_EQUAL(config_node_count(&c), cases[i].replicas + 1);
		c.durability = DURABILITY_QUORUM;
		CU_ASSERT_EQUAL(config_ack_nodes(&c), cases[i].quorum);
		c.durability = DURABILITY_ALL;
		CU_ASSERT_EQUAL(config_ack_nodes(&c), cases[i].replicas + 1);
		c.durability = DURABILITY_ASYNC;
		CU_ASSERT_EQUAL(config_ack_nodes(&c), 1);
	}
}

/* ---- files */

static void a_written_file_says_everything_and_reads_back(void)
{
	static const char *const said[] = {"replicas",    "bind",       "durability",
					   "interval_ms", "keep_bytes", "idle_timeout_ms"};
	char path[UNIT_PATH_MAX + 32];
	char text[16384] = "";
	struct cluster_config c, back;
	struct errmsg em = {0};
	struct stat st;
	FILE *f;
	size_t i;

	in_tmpdir(path, "cluster.json");
	config_init(&c);
	for (i = 0; i < sizeof(c.cluster_id); i++)
		c.cluster_id[i] = (uint8_t)(i * 17);
	c.replicas = 5;
	c.http_port = 9090;
	c.durability = DURABILITY_ASYNC;
	c.commit_timeout_ms = 77;
	snprintf(c.bind, sizeof(c.bind), "::1");
	UNIT_OK(config_write_new(&c, path, &em), &em);
	config_init(&back);
	UNIT_OK(config_load(&back, path, &em), &em);
	CU_ASSERT_EQUAL(memcmp(&c, &back, sizeof(c)), 0);
	CU_ASSERT_TRUE(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	f = fopen(path, "r");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_TRUE(fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	for (i = 0; i < sizeof(said) / sizeof(said[0]); i++)
		CU_ASSERT_PTR_NOT_NULL(strstr(text, said[i]));
}

static void a_section_that_is_uncommented_is_legal_as_it_stands(void)
{
	char path[UNIT_PATH_MAX + 32];
	char text[16384] = "";
	struct cluster_config c, back;
	struct errmsg em = {0};
	char *at;
	FILE *f;

	in_tmpdir(path, "cluster.json");
	config_init(&c);
	UNIT_OK(config_write_new(&c, path, &em), &em);
	f = fopen(path, "r");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_TRUE(fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	for (at = text; (at = strstr(at, "\n\t//")) != NULL; at++)
		memcpy(at, "\n\t  ", 4); /* as an operator does who wants every setting */
	config_init(&back);
	UNIT_OK(config_parse(&back, text, strlen(text), path, &em), &em);
	CU_ASSERT_EQUAL(memcmp(&c, &back, sizeof(c)), 0);
}

static void an_existing_file_is_never_replaced(void)
{
	char path[UNIT_PATH_MAX + 32];
	struct cluster_config c;
	struct errmsg em = {0};

	in_tmpdir(path, "cluster.json");
	write_file(path, "{\"replicas\": 7}", 15);
	config_init(&c);
	CU_ASSERT_EQUAL(config_write_new(&c, path, &em), DB_EXISTS);
	UNIT_OK(config_load(&c, path, &em), &em);
	CU_ASSERT_EQUAL(c.replicas, 7);
}

static void files_that_cannot_be_read_say_why(void)
{
	char path[UNIT_PATH_MAX + 32];
	struct cluster_config c;
	struct errmsg em = {0};
	char *big = calloc(1, (size_t)4 << 20);

	CU_ASSERT_PTR_NOT_NULL_FATAL(big);
	in_tmpdir(path, "cluster.json");
	config_init(&c);
	CU_ASSERT_EQUAL(config_load(&c, path, &em), DB_NOTFOUND);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, path));
	write_file(path, big, (size_t)4 << 20);
	CU_ASSERT_EQUAL(config_load(&c, path, &em), DB_INVALID);
	write_file(path, "{\n\n oops }", 10);
	CU_ASSERT_EQUAL(config_load(&c, path, &em), DB_INVALID);
	CU_ASSERT_PTR_NOT_NULL(strstr(em.text, "cluster.json:3:"));
	free(big);
}

/* ---- tokens */

static void a_token_is_created_once_and_kept_private(void)
{
	char path[UNIT_PATH_MAX + 32], other[UNIT_PATH_MAX + 32];
	struct errmsg em = {0};
	char *first, *again, *different;
	struct stat st;

	in_tmpdir(path, "token");
	in_tmpdir(other, "token");
	UNIT_OK(token_create(path, NULL, &em), &em);
	CU_ASSERT_TRUE(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	UNIT_OK(token_load(&first, path, &em), &em);
	CU_ASSERT_TRUE(strlen(first) == 64 && strspn(first, "0123456789abcdef") == 64);
	UNIT_OK(token_create(path, "another-token-altogether", &em), &em); /* there is one: it stays */
	UNIT_OK(token_load(&again, path, &em), &em);
	CU_ASSERT_STRING_EQUAL(first, again);
	UNIT_OK(token_create(other, NULL, &em), &em);
	UNIT_OK(token_load(&different, other, &em), &em);
	CU_ASSERT_STRING_NOT_EQUAL(first, different);
	free(first);
	free(again);
	free(different);
}

static void a_preset_token_is_checked_and_written(void)
{
	char path[UNIT_PATH_MAX + 32];
	struct errmsg em = {0};
	char *token;

	in_tmpdir(path, "token");
	CU_ASSERT_EQUAL(token_create(path, "short", &em), DB_INVALID);
	CU_ASSERT_EQUAL(token_create(path, "has a space in the middle", &em), DB_INVALID);
	CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
	UNIT_OK(token_create(path, "sixteen-letters!", &em), &em);
	UNIT_OK(token_load(&token, path, &em), &em);
	CU_ASSERT_STRING_EQUAL(token, "sixteen-letters!");
	free(token);
}

static void token_files_are_one_good_line(void)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum db_err err;
	} cases[] = {
	    {"0123456789abcdef", 16, DB_OK},
	    {"0123456789abcdef\n", 17, DB_OK},
	    {"0123456789abcde\n", 16, DB_INVALID},
	    {"0123456789abcdef\nmore\n", 22, DB_INVALID},
	    {"0123456789 abcdef", 17, DB_INVALID},
	    {"0123456789\0abcdefgh", 19, DB_INVALID},
	    {"0123456789\xc3\xa4"
	     "bcdefg",
	     18, DB_INVALID},
	    {"", 0, DB_INVALID},
	};
	char path[UNIT_PATH_MAX + 32];
	struct errmsg em = {0};
	char longest[300];
	char *token;
	size_t i;

	in_tmpdir(path, "token");
	CU_ASSERT_EQUAL(token_load(&token, path, &em), DB_NOTFOUND);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_file(path, cases[i].bytes, cases[i].len);
		CU_ASSERT_EQUAL(token_load(&token, path, &em), cases[i].err);
		if (cases[i].err == DB_OK) {
			CU_ASSERT_STRING_EQUAL(token, "0123456789abcdef");
			free(token);
		}
	}
	memset(longest, 't', sizeof(longest));
	write_file(path, longest, 256);
	UNIT_OK(token_load(&token, path, &em), &em);
	free(token);
	write_file(path, longest, 257);
	CU_ASSERT_EQUAL(token_load(&token, path, &em), DB_INVALID);
	CU_ASSERT_PTR_NULL(strstr(em.text, "ttt")); /* a token never shows in a message */
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"an empty object means the defaults", an_empty_object_means_the_defaults},
	    {"every key reaches its field", every_key_reaches_its_field},
	    {"comments are ignored, but not inside strings", comments_are_ignored_but_not_inside_strings},
	    {"a syntax error is found on its line", a_syntax_error_is_found_on_its_line},
	    {"types and ranges are checked", types_and_ranges_are_checked},
	    {"tls settings go together", tls_settings_go_together},
	    {"links of one host use files unless told otherwise", links_of_one_host_use_files_unless_told_otherwise},
	    {"an open address needs tls or insecure", an_open_address_needs_tls_or_insecure},
	    {"unknown keys are named with their path", unknown_keys_are_named_with_their_path},
	    {"bind is an address or localhost", bind_is_an_address_or_localhost},
	    {"all ports of all nodes fit", all_ports_of_all_nodes_fit},
	    {"remote nodes are checked for their shape", remote_nodes_are_checked_for_their_shape},
	    {"damaged files are refused and nothing worse", damaged_files_are_refused_and_nothing_worse},
	    {"addresses follow the port plan", addresses_follow_the_port_plan},
	    {"as many nodes as promised must have a record", as_many_nodes_must_have_a_record_as_was_promised},
	    {"a written file says everything and reads back", a_written_file_says_everything_and_reads_back},
	    {"a section that is uncommented is legal", a_section_that_is_uncommented_is_legal_as_it_stands},
	    {"an existing file is never replaced", an_existing_file_is_never_replaced},
	    {"files that cannot be read say why", files_that_cannot_be_read_say_why},
	    {"a token is created once and kept private", a_token_is_created_once_and_kept_private},
	    {"a preset token is checked and written", a_preset_token_is_checked_and_written},
	    {"token files are one good line", token_files_are_one_good_line},
	    {NULL, NULL},
	};

	return unit_run("config", tests);
}
