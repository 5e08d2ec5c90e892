/* test_members.c - who belongs to the cluster: the value, its bytes and quorums, the statements and addresses that name it. */
#include "common/base/members.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/query/admin_sql.h"
#include "supervisor/addresses.h"
#include "tests/unit/unit.h"

static struct cluster_config config_of(unsigned replicas)
{
	struct cluster_config c;

	config_init(&c);
	c.replicas = replicas;
	c.http_port = 8080;
	return c;
}

static struct members members_of(unsigned replicas)
{
	struct cluster_config c = config_of(replicas);
	struct members m;

	members_init(&m, &c);
	return m;
}

static void set(struct members *m, unsigned n, enum members_state state)
{
	m->entries[n] = (struct members_entry){state, (uint16_t)(8081 + n), (uint16_t)(8181 + n), (uint16_t)(8281 + n)};
	m->version++;
}

/* ---- the value */

static void the_configuration_is_where_members_begin(void)
{
	struct members m = members_of(2);

	CU_ASSERT_EQUAL(m.version, 0);
	CU_ASSERT_EQUAL(members_count(&m), 3);
	CU_ASSERT_EQUAL(members_voters(&m), 3);
	CU_ASSERT_EQUAL(members_pending(&m), MEMBERS_NOBODY);
	CU_ASSERT(m.entries[2].http_port == 8083 && m.entries[2].replication_port == 8183 &&
		  m.entries[2].ack_port == 8283);
	CU_ASSERT(members_valid(&m));
}

static void between_two_sets_both_count(void)
{
	struct members m = members_of(2);
	struct members_quorum q[2];

	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 1);
	CU_ASSERT(q[0].nodes == 7 && q[0].acks == 2);
	set(&m, 3, MEMBERS_LEARNING);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 1);
	CU_ASSERT(q[0].nodes == 7 && members_pending(&m) == 3 && members_count(&m) == 4);
	set(&m, 3, MEMBERS_JOINING);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 2);
	CU_ASSERT(q[0].nodes == 7 && q[0].acks == 2 && q[1].nodes == 15 && q[1].acks == 3);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_ALL, q), 2);
	CU_ASSERT(q[0].acks == 3 && q[1].acks == 4);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_ASYNC, q), 2);
	CU_ASSERT(q[0].acks == 1 && q[1].acks == 1);
	set(&m, 3, MEMBERS_VOTER);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 1);
	set(&m, 0, MEMBERS_LEAVING);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 2);
	CU_ASSERT(q[0].nodes == 15 && q[0].acks == 3 && q[1].nodes == 14 && q[1].acks == 2);
	set(&m, 0, MEMBERS_REMOVED);
	set(&m, 4, MEMBERS_READONLY);
	CU_ASSERT_EQUAL(members_quorums(&m, DURABILITY_QUORUM, q), 1);
	CU_ASSERT(q[0].nodes == 14 && members_count(&m) == 4 && members_voters(&m) == 3);
}

static bool survives(const struct members *m)
{
	struct members got;
	struct buf b = {0};
	struct rd r;
	bool ok;

	members_put(&b, m);
	CU_ASSERT_FATAL(!b.failed && b.len <= MEMBERS_BYTES_MAX);
	rd_init(&r, b.data, b.len);
	members_get(&r, &got);
	ok = !r.bad && r.left == 0 && memcmp(&got, m, sizeof(got)) == 0;
	buf_fini(&b);
	return ok;
}

static void bytes_come_back_and_nonsense_does_not(void)
{
	struct members m = members_of(2);
	unsigned n;

	CU_ASSERT(survives(&m));
	set(&m, 1, MEMBERS_REMOVED);
	set(&m, 30, MEMBERS_JOINING);
	CU_ASSERT(survives(&m));
	set(&m, 5, MEMBERS_LEARNING);
	CU_ASSERT_FALSE(survives(&m)); /* two changes at once */
	m = members_of(1);
	set(&m, 0, MEMBERS_READONLY);
	set(&m, 1, MEMBERS_JOINING);
	CU_ASSERT_FALSE(survives(&m)); /* nobody in the old set */
	m = members_of(1);
	m.version = 3;
	m.entries[1].ack_port = 0;
	CU_ASSERT_FALSE(survives(&m));
	m = members_of(1);
	m.entries[4].http_port = 1; /* of nobody */
	CU_ASSERT_FALSE(survives(&m));
	m = members_of(1);
	m.entries[1].state = (enum members_state)9;
	CU_ASSERT_FALSE(survives(&m));
	memset(&m, 0, sizeof(m));
	CU_ASSERT(survives(&m)); /* unknown */
	m.version = 1;
	CU_ASSERT_FALSE(survives(&m)); /* nobody at all */
	m = members_of(30);
	m.version = UINT64_MAX;
	for (n = 0; n < 30; n++)
		m.entries[n].state = n % 2 ? MEMBERS_VOTER : MEMBERS_REMOVED;
	CU_ASSERT(survives(&m));
}

static void cut_bytes_are_bad(void)
{
	struct members m = members_of(3), got;
	struct buf b = {0};
	struct rd r;
	size_t len;

	members_put(&b, &m);
	for (len = 0; len < b.len; len++) {
		rd_init(&r, b.data, len);
		members_get(&r, &got);
		CU_ASSERT(r.bad && members_count(&got) == 0);
	}
	b.data[8] = MEMBERS_MAX + 1;
	rd_init(&r, b.data, b.len);
	members_get(&r, &got);
	CU_ASSERT(r.bad);
	buf_fini(&b);
}

static void states_have_names(void)
{
	enum members_state state;
	int i;

	for (i = MEMBERS_NONE; i <= MEMBERS_REMOVED; i++)
		CU_ASSERT(members_state_parse(members_state_name((enum members_state)i), &state) && (int)state == i);
	CU_ASSERT_FALSE(members_state_parse("unknown", &state));
	CU_ASSERT_STRING_EQUAL(members_state_name((enum members_state)99), "unknown");
}

/* ---- statements */

static enum query_code parse(const char *body, struct admin_statement *out, struct query_error *error)
{
	const struct query_request_limits limits = {0, 0};
	struct query_request *request = NULL;
	enum query_code code;

	CU_ASSERT_EQUAL_FATAL(query_request_parse(&request, body, strlen(body), &limits, error), QUERY_OK);
	code = admin_sql_parse(request, out, error);
	query_request_free(request);
	return code;
}

static void check_sql(const char *sql, enum admin_kind kind, const char *address, bool readonly)
{
	struct admin_statement s;
	struct query_error error;
	char body[256];

	snprintf(body, sizeof(body), "{\"sql\":\"%s\"}", sql);
	CU_ASSERT_EQUAL(parse(body, &s, &error), QUERY_OK);
	CU_ASSERT_EQUAL(s.kind, kind);
	CU_ASSERT_STRING_EQUAL(s.address, address);
	CU_ASSERT_EQUAL(s.readonly, readonly);
}

static void the_clusters_own_statements_are_told_from_sql(void)
{
	check_sql("ADD REPLICA 127.0.0.1:8084", ADMIN_ADD_REPLICA, "127.0.0.1:8084", false);
	check_sql(" add\\n\\treplica [::1]:8084;", ADMIN_ADD_REPLICA, "[::1]:8084", false);
	check_sql("Add Replica 'h:1' ReadOnly ; ;", ADMIN_ADD_REPLICA, "h:1", true);
	check_sql("/* now */ ADD REPLICA \\\"h:1\\\" NONVOTING -- done", ADMIN_ADD_REPLICA, "h:1", true);
	check_sql("remove replica node2", ADMIN_REMOVE_REPLICA, "node2", false);
	check_sql("; show replicas ;", ADMIN_SHOW_REPLICAS, "", false);
	check_sql("SELECT 1", ADMIN_NONE, "", false);
	check_sql("ADD COLUMN x", ADMIN_NONE, "", false);
	check_sql("SHOW", ADMIN_NONE, "", false);
	check_sql("SELECT 1; SHOW REPLICAS", ADMIN_NONE, "", false); /* SQLite says what it thinks of it */
}

static void wrong_statements_are_refused(void)
{
	static const char *const bodies[] = {
	    "{\"sql\":\"ADD REPLICA\"}",
	    "{\"sql\":\"ADD REPLICA a b\"}",
	    "{\"sql\":\"ADD REPLICA a READONLY x\"}",
	    "{\"sql\":\"ADD REPLICA 'a\"}",
	    "{\"sql\":\"ADD REPLICA ''\"}",
	    "{\"sql\":\"REMOVE REPLICA\"}",
	    "{\"sql\":\"REMOVE REPLICA a READONLY\"}",
	    "{\"sql\":\"SHOW REPLICAS x\"}",
	    "{\"sql\":\"SHOW REPLICAS; SELECT 1\"}",
	    "{\"sql\":\"ADD REPLICA ?\",\"params\":[\"a\"]}",
	    "{\"statements\":[{\"sql\":\"SELECT 1\"},{\"sql\":\"SHOW REPLICAS\"}]}",
	};
	struct admin_statement s;
	struct query_error error;
	char body[512];
	size_t i;

	for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		memset(&error, 0, sizeof(error));
		CU_ASSERT_EQUAL(parse(bodies[i], &s, &error), QUERY_BAD_REQUEST);
		CU_ASSERT(strstr(error.message, "alone in") != NULL);
	}
	snprintf(body, sizeof(body), "{\"sql\":\"ADD REPLICA %0200d\"}", 1); /* longer than any address */
	CU_ASSERT_EQUAL(parse(body, &s, &error), QUERY_BAD_REQUEST);
}

/* ---- addresses */

static void check_new(const char *text, const struct members *m, unsigned number, unsigned port)
{
	struct cluster_config c = config_of(2);
	struct members_entry e = {0};
	struct errmsg em = {0};
	unsigned n = 99;

	UNIT_OK(addresses_new(&n, &e, text, m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, number - 1);
	CU_ASSERT(e.http_port == port && e.replication_port == port + 100 && e.ack_port == port + 200);
}

static void an_address_names_its_node_or_gets_the_next_number(void)
{
	struct members m = members_of(2);
	char own[256] = "";
	char text[300];

	check_new("127.0.0.1:8084", &m, 4, 8084);
	check_new("127.0.0.1:8184", &m, 4, 8084); /* its replication address */
	check_new("localhost:8111", &m, 31, 8111);
	check_new("[::1]:8086", &m, 6, 8086);
	check_new("127.0.0.2:9000", &m, 4, 9000);
	check_new("127.0.0.1:8082", &m, 2, 8082); /* a member already */
	CU_ASSERT_EQUAL(gethostname(own, sizeof(own) - 1), 0);
	snprintf(text, sizeof(text), "%s:8084", own);
	check_new(text, &m, 4, 8084);
	set(&m, 3, MEMBERS_REMOVED);
	check_new("127.0.0.1:8084", &m, 5, 8084); /* numbers are not used twice */
	set(&m, 29, MEMBERS_VOTER);
	check_new("127.0.0.1:8084", &m, 31, 8084);
	check_new("127.0.0.1:8085", &m, 5, 8085);
}

static void check_refused(const char *text, const struct members *m, const char *why)
{
	struct cluster_config c = config_of(2);
	struct members_entry e = {0};
	struct errmsg em = {0};
	unsigned n;

	CU_ASSERT(addresses_new(&n, &e, text, m, &c, &em) != DB_OK);
	if (strstr(em.text, why) == NULL)
		printf("\"%s\": %s\n", text, em.text);
	CU_ASSERT(strstr(em.text, why) != NULL);
}

static void wrong_addresses_are_refused(void)
{
	struct members m = members_of(2);
	unsigned n;

	check_refused("", &m, "host:port");
	check_refused("host", &m, "host:port");
	check_refused(":8084", &m, "host:port");
	check_refused("127.0.0.1:", &m, "host:port");
	check_refused("127.0.0.1:0", &m, "host:port");
	check_refused("127.0.0.1:65536", &m, "host:port");
	check_refused("127.0.0.1:80x", &m, "host:port");
	check_refused("::1:8084", &m, "brackets");
	check_refused("192.0.2.1:8084", &m, "no address of this host");
	check_refused("elsewhere.example:8084", &m, "no address of this host");
	check_refused("127.0.0.1:8080", &m, "endpoint");
	check_refused("127.0.0.1:7982", &m, "node2 has"); /* its replication port would be node2's HTTP port */
	check_refused("127.0.0.1:65400", &m, "no room");
	set(&m, 30, MEMBERS_REMOVED);
	check_refused("127.0.0.1:9000", &m, "was used already");
	for (n = 0; n < MEMBERS_MAX; n++)
		set(&m, n, MEMBERS_VOTER);
	check_refused("127.0.0.1:9000", &m, "was used already");
}

static void members_are_found_by_id_and_by_any_address(void)
{
	struct cluster_config c = config_of(2);
	struct members m = members_of(2);
	struct errmsg em = {0};
	unsigned n;

	UNIT_OK(addresses_find(&n, "node3", &m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, 2);
	UNIT_OK(addresses_find(&n, "NODE1", &m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, 0);
	UNIT_OK(addresses_find(&n, "127.0.0.1:8082", &m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, 1);
	UNIT_OK(addresses_find(&n, "127.0.0.1:8182", &m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, 1);
	UNIT_OK(addresses_find(&n, "127.0.0.1:8282", &m, &c, &em), &em);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(addresses_find(&n, "127.0.0.1:8084", &m, &c, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(addresses_find(&n, "node4", &m, &c, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(addresses_find(&n, "node99999", &m, &c, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(addresses_find(&n, "node", &m, &c, &em), DB_INVALID);
	set(&m, 1, MEMBERS_REMOVED);
	CU_ASSERT_EQUAL(addresses_find(&n, "node2", &m, &c, &em), DB_NOTFOUND);
	CU_ASSERT_EQUAL(addresses_find(&n, "127.0.0.1:8082", &m, &c, &em), DB_NOTFOUND);
}

static void a_port_that_is_taken_is_noticed(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct cluster_config c = config_of(2);
	struct members_entry e;
	struct errmsg em = {0};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CU_ASSERT_FATAL(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0 &&
			getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	e = (struct members_entry){MEMBERS_VOTER, ntohs(a.sin_port), ntohs(a.sin_port), ntohs(a.sin_port)};
	CU_ASSERT_EQUAL(addresses_check_free(&e, &c, &em), DB_BUSY);
	CU_ASSERT(strstr(em.text, "in use") != NULL);
	close(fd);
	UNIT_OK(addresses_check_free(&e, &c, &em), &em);
}

static const struct unit_test tests[] = {
    {"the_configuration_is_where_members_begin", the_configuration_is_where_members_begin},
    {"between_two_sets_both_count", between_two_sets_both_count},
    {"bytes_come_back_and_nonsense_does_not", bytes_come_back_and_nonsense_does_not},
    {"cut_bytes_are_bad", cut_bytes_are_bad},
    {"states_have_names", states_have_names},
    {"the_clusters_own_statements_are_told_from_sql", the_clusters_own_statements_are_told_from_sql},
    {"wrong_statements_are_refused", wrong_statements_are_refused},
    {"an_address_names_its_node_or_gets_the_next_number", an_address_names_its_node_or_gets_the_next_number},
    {"wrong_addresses_are_refused", wrong_addresses_are_refused},
    {"members_are_found_by_id_and_by_any_address", members_are_found_by_id_and_by_any_address},
    {"a_port_that_is_taken_is_noticed", a_port_that_is_taken_is_noticed},
    {NULL, NULL},
};

int main(void)
{
	return unit_run("members", tests);
}
