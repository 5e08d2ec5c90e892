/*
 * test_log.c - log lines in both forms, levels, and what a line does with hostile text; the configuration that sets them.
 */
#include "common/base/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/config_show.h"
#include "tests/unit/unit.h"

static char said[65536];

/* What write_lines() puts on stderr. */
static void listen_to(void (*write_lines)(void))
{
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 16];
	int before = dup(STDERR_FILENO);
	ssize_t n;
	int fd;

	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/log", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0 && before >= 0);
	dup2(fd, STDERR_FILENO);
	write_lines();
	dup2(before, STDERR_FILENO);
	close(before);
	n = pread(fd, said, sizeof(said) - 1, 0);
	close(fd);
	CU_ASSERT_FATAL(n >= 0);
	said[n] = '\0';
}

static const char *member(json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s == NULL ? "(none)" : s;
}

static char hostile[4000];

static void two_lines(void)
{
	log_debug("frames");
	log_info("node%d why=\"%s\"", 2, "gap");
	log_event(LOG_LEVEL_WARN, "slow query", (const struct log_field[]){{"ms", "12"}, {"sql", "SELECT \"a\""}}, 2);
}

static void test_text_lines_are_as_ever(void)
{
	log_init("node1", LOG_LEVEL_INFO);
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	listen_to(two_lines);
	CU_ASSERT_PTR_NULL(strstr(said, "frames"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said, "Z node1 info node2 why=\"gap\"\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said, "Z node1 warn slow query ms=12 sql=\"SELECT \\\"a\\\"\"\n"));
}

static void test_json_lines_have_the_parts_as_members(void)
{
	char *second;
	json_t *line;

	log_set(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	listen_to(two_lines);
	second = strchr(said, '\n') + 1;
	second[-1] = '\0';
	line = json_loads(said, 0, NULL);
	CU_ASSERT_STRING_EQUAL(member(line, "text"), "node2 why=\"gap\"");
	CU_ASSERT_STRING_EQUAL(member(line, "level"), "info");
	CU_ASSERT_STRING_EQUAL(member(line, "process"), "node1");
	CU_ASSERT_EQUAL(strlen(member(line, "time")), strlen("2026-01-31T12:00:00.123Z"));
	CU_ASSERT_EQUAL(json_object_size(line), 4);
	json_decref(line);
	line = json_loads(second, 0, NULL);
	CU_ASSERT_STRING_EQUAL(member(line, "text"), "slow query");
	CU_ASSERT_STRING_EQUAL(member(line, "ms"), "12");
	CU_ASSERT_STRING_EQUAL(member(line, "sql"), "SELECT \"a\"");
	json_decref(line);
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void lines_of_requests(void)
{
	log_set_request_id("shop 42");
	log_warn("late");
	log_event(LOG_LEVEL_WARN, "slow query", (const struct log_field[]){{"ms", "12"}}, 1);
	log_set_request_id(hostile);
	log_warn("long");
	log_set_request_id(NULL);
	log_warn("nobody's");
}

static void test_lines_on_behalf_of_a_request_name_it(void)
{
	char *p, *end;
	json_t *line;

	memset(hostile, 'x', sizeof(hostile) - 1);
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	listen_to(lines_of_requests);
	CU_ASSERT_PTR_NOT_NULL(strstr(said, "warn late request_id=\"shop 42\"\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said, "warn slow query request_id=\"shop 42\" ms=12\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said, "warn nobody's\n"));
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	listen_to(lines_of_requests);
	for (p = said; (end = strchr(p, '\n')) != NULL; p = end + 1) {
		*end = '\0';
		line = json_loads(p, JSON_REJECT_DUPLICATES, NULL);
		CU_ASSERT_TRUE(json_is_object(line));
		if (strcmp(member(line, "text"), "nobody's") == 0)
			CU_ASSERT_STRING_EQUAL(member(line, "request_id"), "(none)")
		else if (strcmp(member(line, "text"), "long") == 0)
			CU_ASSERT_EQUAL(strlen(member(line, "request_id")), LOG_REQUEST_ID_MAX)
		else
			CU_ASSERT_STRING_EQUAL(member(line, "request_id"), "shop 42")
		json_decref(line);
	}
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	CU_ASSERT_STRING_EQUAL(log_request_id(), "");
	CU_ASSERT_TRUE(log_is_wanted(LOG_LEVEL_INFO) && !log_is_wanted(LOG_LEVEL_DEBUG));
}

static void levels(void)
{
	enum log_level level;

	for (level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		log_set(level, LOG_FORMAT_TEXT);
		log_debug("%d", (int)level);
		log_info("%d", (int)level);
		log_warn("%d", (int)level);
		log_error("%d", (int)level);
	}
}

static void test_a_level_holds_back_what_is_less(void)
{
	size_t lines = 0;
	const char *p;

	listen_to(levels);
	for (p = said; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	CU_ASSERT_EQUAL(lines, 4 + 3 + 2 + 1);
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void log_hostile(void)
{
	log_info("%s", hostile);
	log_event(LOG_LEVEL_INFO, "e",
		  (const struct log_field[]){{"a", hostile}, {"b", hostile}, {"c", hostile}, {"d", "end"}}, 4);
}

static void test_whatever_is_logged_a_json_line_is_whole(void)
{
	static const char *const pieces[] = {"\"",           "\\",       "\n",           "\x01", "\xff",
					     "\xe2\x82\xac", "\xe2\x82", "\xed\xa0\x80", "plain"};
	size_t i, lines, len;
	char *p, *end;
	json_t *line;

	log_set(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		for (len = 0; len + strlen(pieces[i]) < sizeof(hostile); len += strlen(pieces[i]))
			memcpy(hostile + len, pieces[i], strlen(pieces[i]) + 1);
		listen_to(log_hostile);
		lines = 0;
		for (p = said; (end = strchr(p, '\n')) != NULL; p = end + 1) {
			*end = '\0';
			line = json_loads(p, 0, NULL);
			CU_ASSERT_TRUE(json_is_object(line));
			json_decref(line);
			lines++;
		}
		CU_ASSERT_EQUAL(lines, 2);
		CU_ASSERT_EQUAL(*p, '\0');
	}
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

/* ---- config_show.h */

static void test_effective_values_are_a_configuration(void)
{
	static const char text[] =
	    "{\"cluster\":\"00112233445566778899aabbccddeeff\",\"bind\":\"::1\",\"durability\":\"all\",\"http_port\":"
	    "9000,"
	    "\"log\":{\"keep_bytes\":70000000},\"archive\":{\"dir\":\"/"
	    "x\"},\"logging\":{\"level\":\"warn\",\"format\":\"json\","
	    "\"slow_query_ms\":7},\"remote\":{\"nodes\":{\"a:1\":{\"token_file\":\"t\"}},\"allow\":[\"b:*\"]}}";
	struct cluster_config *c = calloc(2, sizeof(*c));
	struct errmsg em = {0};
	struct buf out = {0};
	struct buf differences = {0};

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	config_init(&c[0]);
	UNIT_OK(config_parse(&c[0], text, strlen(text), "x", &em), &em);
	config_put_json(&out, &c[0]);
	config_init(&c[1]);
	UNIT_OK(config_parse(&c[1], (const char *)out.data, out.len, "y", &em), &em);
	CU_ASSERT_EQUAL(memcmp(&c[0], &c[1], sizeof(*c)), 0);
	config_put_differences(&differences, &c[0], &c[1]);
	CU_ASSERT_EQUAL(differences.len, 0);
	c[1].query.timeout_ms = 5;
	c[1].http_port = 9001;
	c[1].remote.allow_count = 0;
	config_put_differences(&differences, &c[0], &c[1]);
	buf_put(&differences, "", 1);
	CU_ASSERT_PTR_NOT_NULL(strstr((char *)differences.data, "query.timeout_ms"));
	CU_ASSERT_PTR_NOT_NULL(strstr((char *)differences.data, "http_port"));
	CU_ASSERT_PTR_NOT_NULL(strstr((char *)differences.data, "remote.allow"));
	CU_ASSERT_PTR_NULL(strstr((char *)differences.data, "bind"));
	buf_fini(&out);
	buf_fini(&differences);
	free(c);
}

static void test_reloading_takes_up_logging_or_nothing(void)
{
	struct cluster_config *c = calloc(1, sizeof(*c));
	char dir[UNIT_PATH_MAX], path[UNIT_PATH_MAX + 16];
	struct errmsg em = {0};
	struct buf waiting = {0};
	FILE *f;

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	unit_tmpdir(dir);
	snprintf(path, sizeof(path), "%s/c.json", dir);
	config_init(c);
	CU_ASSERT_EQUAL(config_reload(c, path, &waiting, &em), DB_NOTFOUND);
	f = fopen(path, "w");
	fputs("{\"http_port\": 9000, \"logging\": {\"level\": \"error\", \"slow_query_ms\": 3}}", f);
	fclose(f);
	UNIT_OK(config_reload(c, path, &waiting, &em), &em);
	CU_ASSERT_EQUAL(c->logging.level, LOG_LEVEL_ERROR);
	CU_ASSERT_EQUAL(c->logging.slow_query_ms, 3);
	CU_ASSERT_EQUAL(c->http_port, 8080);
	CU_ASSERT(waiting.len == strlen("http_port") && memcmp(waiting.data, "http_port", waiting.len) == 0);
	f = fopen(path, "w");
	fputs("{\"logging\": {\"level\": \"info\", \"slow_query_ms\": -3}}", f);
	fclose(f);
	CU_ASSERT_EQUAL(config_reload(c, path, &waiting, &em), DB_INVALID);
	CU_ASSERT_EQUAL(c->logging.level, LOG_LEVEL_ERROR);
	log_set(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	buf_fini(&waiting);
	free(c);
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"text lines are as ever", test_text_lines_are_as_ever},
	    {"JSON lines have the parts as members", test_json_lines_have_the_parts_as_members},
	    {"lines on behalf of a request name it", test_lines_on_behalf_of_a_request_name_it},
	    {"a level holds back what is less", test_a_level_holds_back_what_is_less},
	    {"whatever is logged, a JSON line is whole", test_whatever_is_logged_a_json_line_is_whole},
	    {"effective values are a configuration", test_effective_values_are_a_configuration},
	    {"reloading takes up logging, or nothing", test_reloading_takes_up_logging_or_nothing},
	    {NULL, NULL},
	};

	return unit_run("log", tests);
}
