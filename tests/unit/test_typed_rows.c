/*
 * test_typed_rows.c - answers in the typed form: what query_read() writes is what a rows_reader reads, and nothing else is.
 */
#include "common/query/typed_rows.h"

#include <math.h>

#include "tests/unit/query_fixture.h"
#include "tests/unit/rows_events.h"

static void assert_typed(const struct buf *b, const char *expected)
{
	assert_reads(200, TYPED_ROWS_TYPE, b->data, b->len, expected);
}

/* Reads body as another node would; the answer is in b->out. */
static enum query_outcome read_typed(struct query_fixture *b, const char *body, const struct query_read_limits *limits,
				     const struct query_sink *sink)
{
	const struct query_read_limits none = {0};
	struct query_request *r = fixture_parse(body);
	enum query_outcome outcome;

	buf_clear(&b->out);
	memset(&b->error, 0, sizeof(b->error));
	r->typed = true;
	outcome = query_read(b->reader, r, limits != NULL ? limits : &none, sink, clock_mono_us(), &b->out, &b->error);
	query_request_free(r);
	return outcome;
}

static void test_reads_come_back(void)
{
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL, x BLOB, y)");
	fixture_write_ok(&b, "INSERT INTO t VALUES (1,'a\xC3\xA9',1.5,x'006263',NULL),(-9223372036854775808,'',-9e999,"
			     "x'',0),(9223372036854775807,char(0)||'b',2,'t',128)");
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"SELECT *, 127 AS small FROM t\"}", NULL, NULL), QUERY_ANSWERED);
	assert_typed(&b.out, "result 1 id:integer name:text amount:real x:blob y: small:; "
			     "-9223372036854775808,t'',-inf,x'',0,127; 1,t'a\xC3\xA9',0x1.8p+0,x'~bc',null,127; "
			     "9223372036854775807,t'~b',0x1p+1,t't',128,127; done 3 lsn 42; ");
	CU_ASSERT_EQUAL(
	    read_typed(&b,
		       "{\"statements\":[{\"sql\":\"PRAGMA schema_version\"},{\"sql\":\"SELECT id AS a, id AS a "
		       "FROM t WHERE id = ?\",\"params\":[1]},{\"sql\":\"SELECT 1 WHERE 0\"}]}",
		       NULL, NULL),
	    QUERY_ANSWERED);
	assert_typed(&b.out,
		     "result 1 schema_version:; 1; result 2 a:integer a:integer; 1,1; result 3 1:; done 2 lsn 42; ");
	fixture_fini(&b);
}

static void test_bytes_are_as_documented(void)
{
	static const uint8_t golden[] = "GzRows\0\1C\2\1i\1t\7integer\4textR\x80\x42hiR\2\xff\1\0c\2E\1\x2a";
	struct query_fixture b;

	fixture_init(&b);
	fixture_write_ok(&b, "CREATE TABLE t(i INTEGER, t TEXT)");
	fixture_write_ok(&b, "INSERT INTO t VALUES (0,'hi'),(-128,NULL)");
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"SELECT * FROM t\"}", NULL, NULL), QUERY_ANSWERED);
	CU_ASSERT_EQUAL_FATAL(b.out.len, sizeof(golden) - 1);
	CU_ASSERT_EQUAL(memcmp(b.out.data, golden, b.out.len), 0);
	fixture_fini(&b);
}

static void test_texts_that_are_not_utf8_stay_what_they_are(void)
{
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"SELECT CAST(x'ff41' AS TEXT)\"}", NULL, NULL), QUERY_ANSWERED);
	assert_typed(&b.out, "result 1 CAST(x'ff41' AS TEXT):; t'\xff"
			     "A'; done 1 lsn 42; ");
	fixture_fini(&b);
}

/* ---- what it applies to */

static void test_errors_and_writes_are_not_typed(void)
{
	struct query_fixture b;
	struct query_request *r;

	fixture_init(&b);
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"SELECT * FROM nowhere\"}", NULL, NULL), QUERY_FAILED);
	CU_ASSERT_EQUAL(b.out.len, 0);
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"SELECT 1 AS a\",\"format\":\"objects\"}", NULL, NULL),
			QUERY_ANSWERED);
	CU_ASSERT_EQUAL(strncmp((char *)b.out.data, "{\"status\":\"ok\",\"columns\":[\"a\"]", 30), 0);
	r = fixture_parse("{\"sql\":\"CREATE TABLE w(i); INSERT INTO w VALUES (1) RETURNING i\"}");
	r->typed = true;
	buf_clear(&b.out);
	CU_ASSERT_EQUAL(query_write(b.writer, r, 0, &b.out, &b.error, &b.batch_lost), QUERY_OK);
	CU_ASSERT_EQUAL(b.out.data[0], '{');
	query_request_free(r);
	fixture_fini(&b);
}

static void test_accept(void)
{
	CU_ASSERT_TRUE(typed_rows_accepted(strchr(ROWS_ACCEPT_HEADER, ' ')));
	CU_ASSERT_TRUE(typed_rows_accepted("application/json , APPLICATION/vnd.grizzly.ROWS+v1 ; q=0.1"));
	CU_ASSERT_FALSE(typed_rows_accepted(NULL));
	CU_ASSERT_FALSE(typed_rows_accepted(""));
	CU_ASSERT_FALSE(typed_rows_accepted("*/*"));
	CU_ASSERT_FALSE(typed_rows_accepted("application/json, text/plain"));
	CU_ASSERT_FALSE(typed_rows_accepted("application/vnd.grizzly.rows+v12"));
	CU_ASSERT_FALSE(typed_rows_accepted("application/vnd.grizzly.rows+v1;q=0"));
	CU_ASSERT_FALSE(typed_rows_accepted("application/vnd.grizzly.rows+v1; x=1; q=0.0, */*"));
	CU_ASSERT_FALSE(typed_rows_accepted(",,; ,"));
}

/* ---- streams */

struct gathered {
	struct buf all;
	size_t pieces, piece_max;
};

static bool gather(void *arg, struct buf *out)
{
	struct gathered *g = arg;

	g->pieces++;
	g->piece_max = out->len > g->piece_max ? out->len : g->piece_max;
	buf_put(&g->all, out->data, out->len);
	buf_clear(out);
	return true;
}

#define MANY "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) SELECT i, 'row '||i FROM n"

static void test_a_stream_equals_the_whole(void)
{
	struct gathered g = {0};
	const struct query_sink sink = {.flush = gather, .arg = &g, .chunk_bytes = 4096};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"" MANY "\"}", NULL, &sink), QUERY_ANSWERED);
	buf_put(&g.all, b.out.data, b.out.len);
	CU_ASSERT(g.pieces > 50 && g.piece_max < 5000);
	CU_ASSERT_EQUAL(read_typed(&b, "{\"sql\":\"" MANY "\"}", NULL, NULL), QUERY_ANSWERED);
	CU_ASSERT_EQUAL_FATAL(g.all.len, b.out.len);
	CU_ASSERT_EQUAL(memcmp(g.all.data, b.out.data, g.all.len), 0);
	buf_fini(&g.all);
	fixture_fini(&b);
}

static void test_a_stream_that_breaks_says_so(void)
{
	struct gathered g = {0};
	const struct query_sink sink = {.flush = gather, .arg = &g, .chunk_bytes = 1};
	struct buf read = {0};
	struct query_fixture b;

	fixture_init(&b);
	CU_ASSERT_EQUAL(
	    read_typed(&b,
		       "{\"statements\":[{\"sql\":\"SELECT 1 AS a\"},{\"sql\":\"SELECT 2 AS b UNION ALL SELECT "
		       "abs(-9223372036854775808)\"}]}",
		       NULL, &sink),
	    QUERY_BROKEN);
	buf_put(&g.all, b.out.data, b.out.len);
	assert_typed(&g.all, "result 1 a:; 1; result 2 b:; 2; refused SQL_ERROR 1 integer overflow; ");
	buf_fini(&g.all);
	buf_fini(&read);
	fixture_fini(&b);
}

/* ---- any values */

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 11 ^ *state << 17;
}

static void make_value(struct query_value *v, uint64_t *state, char *room)
{
	uint64_t bits = next_random(state);

	v->type = (enum query_value_type)(next_random(state) % 5);
	if (v->type == QUERY_INTEGER) {
		v->integer = (int64_t)(bits >> next_random(state) % 64);
		v->integer = bits & 1 ? v->integer : -v->integer;
	} else if (v->type == QUERY_REAL) {
		memcpy(&v->real, &bits, sizeof(bits));
		v->real = isnan(v->real) ? 0.0 : v->real;
	} else if (v->type != QUERY_NULL) {
		v->data.len = next_random(state) % 200;
		memset(room, (int)(bits & 0xFF), v->data.len);
		v->data.bytes = room;
	}
}

static bool same_value(const struct query_value *a, const struct query_value *b)
{
	if (a->type != b->type)
		return false;
	if (a->type == QUERY_INTEGER)
		return a->integer == b->integer;
	if (a->type == QUERY_REAL)
		return memcmp(&a->real, &b->real, sizeof(a->real)) == 0;
	return a->type == QUERY_NULL ||
	       (a->data.len == b->data.len && memcmp(a->data.bytes, b->data.bytes, a->data.len) == 0);
}

#define RANDOM_VALUES 20000

static void test_random_values_come_back(void)
{
	static struct query_value values[RANDOM_VALUES];
	static char room[RANDOM_VALUES][200];
	struct query_error error = {.statement = -1};
	enum rows_event event;
	struct rows_reader *r;
	struct errmsg em = {0};
	struct buf out = {0};
	uint64_t state = 1;
	size_t i, at = 0, row = 0;

	typed_rows_put_magic(&out);
	buf_put(&out, "C\1\1v\0", 5);
	for (i = 0; i < RANDOM_VALUES; i++) {
		make_value(&values[i], &state, room[i]);
		buf_put_u8(&out, TYPED_ROWS_ROW);
		typed_rows_put_value(&out, &values[i]);
	}
	typed_rows_put_result_end(&out, RANDOM_VALUES);
	typed_rows_put_end(&out, 1, UINT64_MAX);
	UNIT_OK(rows_reader_create(&r, 200, TYPED_ROWS_TYPE, NULL, &em), &em);
	while ((event = rows_reader_next(r, &error)) < ROWS_DONE) {
		size_t piece = next_random(&state) % 3000;

		piece = piece < out.len - at ? piece : out.len - at;
		if (event == ROWS_ROW)
			CU_ASSERT_TRUE(same_value(&rows_reader_values(r)[0], &values[row++]));
		if (event != ROWS_MORE)
			continue;
		CU_ASSERT_EQUAL(rows_reader_feed(r, out.data + at, piece), DB_OK);
		at += piece;
		if (at == out.len)
			rows_reader_finish(r);
	}
	CU_ASSERT_EQUAL(event, ROWS_DONE);
	CU_ASSERT_EQUAL(row, RANDOM_VALUES);
	CU_ASSERT_EQUAL(rows_reader_lsn(r), UINT64_MAX);
	rows_reader_free(r);
	buf_fini(&out);
}

/* ---- damage */

#define MAGIC "GzRows\0\1"

static void test_damage(void)
{
	static const uint8_t good[] = MAGIC "C\3\1a\2bb\0\0\4text\0"
					    "R\x81\x41x\1\0\0\0\0\0\0\xf0\x3f"
					    "R\2\x80\2\0\4\3xyz"
					    "c\2C\0c\0E\2\7";
	static const struct {
		const char *bytes;
		size_t len;
		const char *why;
	} broken[] = {
#define BAD(text, why) {MAGIC text, sizeof(MAGIC text) - 1, why}
	    BAD("R", "mark"),
	    BAD("c\0", "mark"),
	    BAD("C\0E\1\1", "mark"),
	    BAD("C\0C\0", "mark"),
	    BAD("z", "mark"),
	    BAD("C\0c\1", "not as many rows"),
	    BAD("C\0c\0E\2\1", "not as many results"),
	    BAD("E\0\0x", "follows its end"),
	    BAD("E\x80\0\0", "longer than it need be"),
	    BAD("E\xff\xff\xff\xff\xff\xff\xff\xff\xff\2", "number is too large"),
	    BAD("C\xff\xff\x7f", "too many columns"),
	    BAD("C\1\3a\0b", "name is none"),
	    BAD("C\1\xff\xff\xff\xff\x7f", "larger than"),
	    BAD("C\1\1a\0R\5", "value is none"),
	    BAD("C\1\1a\0R\x3f", "value is none"),
	    BAD("C\1\1a\0R\2\0", "small integer"),
	    BAD("C\1\1a\0R\2\xfe\1", "small integer"),
	    BAD("C\1\1a\0R\3\77", "cut short"),
	    BAD("C\1\1a\0R\3\2ab", "short text"),
	    BAD("C\1\1a\0R\4\xff\xff\xff\xff\x7f", "larger than"),
	    BAD("C\1\1a\0R\1\0\0\0\0\0\0\xf8\x7f", "no number"),
	    BAD("X\x7f", "larger than"),
	    BAD("X\1A\1m\xff\xff\xff\xff\xff\1", "names no statement"),
	    {"GzRows\0\2E\0\0", 11, "version 1"},
	    {"{\"status\":\"ok\"}", 15, "version 1"},
	};
	size_t i;

	assert_reads(200, TYPED_ROWS_TYPE, good, sizeof(good) - 1,
		     "result 1 a: bb:text :; 1,t'x',0x1p+0; 128,null,x'xyz'; result 2; done 2 lsn 7; ");
	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		assert_broken(TYPED_ROWS_TYPE, broken[i].bytes, broken[i].len, broken[i].why);
	assert_every_cut_shows(TYPED_ROWS_TYPE, good, sizeof(good) - 1);
	flip_every_bit(TYPED_ROWS_TYPE, good, sizeof(good) - 1);
	assert_reads(200, TYPED_ROWS_TYPE, MAGIC "X\7TIMEOUT\4late\3", 8 + 15, "refused TIMEOUT 2 late; ");
	assert_reads(200, TYPED_ROWS_TYPE, MAGIC "X\3NEW\0\0", 8 + 7, "refused INTERNAL -1 ; ");
}

int main(void)
{
	static const struct unit_test tests[] = {
	    {"reads come back, of one statement and of several", test_reads_come_back},
	    {"the bytes are those documented", test_bytes_are_as_documented},
	    {"texts that are not UTF-8 stay what they are", test_texts_that_are_not_utf8_stay_what_they_are},
	    {"errors, other formats and writes are answered as JSON", test_errors_and_writes_are_not_typed},
	    {"who accepts it", test_accept},
	    {"a stream equals the whole, in small pieces", test_a_stream_equals_the_whole},
	    {"a stream that breaks says so", test_a_stream_that_breaks_says_so},
	    {"random values come back", test_random_values_come_back},
	    {"damage, every cut, every bit flipped", test_damage},
	    {NULL, NULL},
	};

	return unit_run("typed_rows", tests);
}
