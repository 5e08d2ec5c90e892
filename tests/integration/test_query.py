"""The contract of POST /query, key by key: what goes in, what comes out, what each refusal looks like."""
import json
import math

from client import encode
from harness import scenario

SHARED = {"replicas": 1, "settings": {"query": {"timeout_ms": 20000}}}
INT_MAX, INT_MIN = 2**63 - 1, -2**63


def raw_query(c, body, **headers):
    """POST /query with body bytes as they are."""
    return c.client().request("POST", "/query", body, headers)


def table(c, columns, name="t"):
    """A fresh table for one scenario."""
    c.ok("DROP TABLE IF EXISTS %s; CREATE TABLE %s(%s)" % (name, name, columns))


@scenario(shared=True)
def read_answers_with_columns_types_rows_and_trailer(c):
    table(c, "id INTEGER PRIMARY KEY, name VARCHAR(20), price REAL, data BLOB, any")
    c.ok("INSERT INTO t VALUES (1, 'a', 1.5, x'00ff', NULL)")
    answer = c.ok("SELECT id, name, price, data, any, id + 1 FROM t")
    assert answer["columns"][:5] == ["id", "name", "price", "data", "any"], answer
    assert len(answer["columns"]) == 6, answer
    assert answer["types"] == ["integer", "varchar(20)", "real", "blob", "", ""], answer
    assert answer["rows"] == [[1, "a", 1.5, {"$blob": "AP8="}, None, 2]], answer
    assert answer["row_count"] == 1, answer
    assert isinstance(answer["lsn"], int) and answer["lsn"] > 0, answer
    assert answer["node"].startswith("node"), answer
    assert answer["time_ms"] >= 0, answer
    assert "rows_affected" not in answer, answer


@scenario(shared=True)
def content_type_is_json(c):
    for sql in ("SELECT 1", "SELEC 1"):
        assert c.query(sql).headers["Content-Type"].startswith("application/json"), sql


@scenario(shared=True)
def empty_result_has_columns_and_no_rows(c):
    table(c, "a, b")
    answer = c.ok("SELECT a, b FROM t")
    assert (answer["columns"], answer["rows"], answer["row_count"]) == (["a", "b"], [], 0), answer


@scenario(shared=True)
def write_answers_with_rows_affected_and_last_insert_id(c):
    table(c, "id INTEGER PRIMARY KEY, v")
    answer = c.ok("INSERT INTO t(v) VALUES (1), (2), (3)")
    assert (answer["rows_affected"], answer["last_insert_id"]) == (3, 3), answer
    assert "rows" not in answer and answer["lsn"] > 0 and answer["node"] and answer["time_ms"] >= 0, answer
    assert c.ok("UPDATE t SET v = v + 1 WHERE id > 1")["rows_affected"] == 2
    assert c.ok("DELETE FROM t")["rows_affected"] == 3
    assert c.ok("DELETE FROM t")["rows_affected"] == 0


@scenario(shared=True)
def ddl_affects_no_rows(c):
    table(c, "v")
    c.ok("INSERT INTO t VALUES (1), (2)")
    assert c.ok("CREATE INDEX t_v ON t(v)")["rows_affected"] == 0
    assert c.ok("DROP TABLE t")["rows_affected"] == 0


@scenario(shared=True)
def lsn_grows_with_each_write_and_reads_state_it(c):
    table(c, "v")
    first = c.ok("INSERT INTO t VALUES (1)")["lsn"]
    second = c.ok("INSERT INTO t VALUES (2)")["lsn"]
    assert second > first
    assert c.ok("SELECT count(*) FROM t")["lsn"] >= second


@scenario(shared=True)
def returning_gives_rows_too(c):
    table(c, "id INTEGER PRIMARY KEY, v TEXT")
    answer = c.ok("INSERT INTO t(v) VALUES ('a'), ('b') RETURNING id, v")
    assert answer["rows"] == [[1, "a"], [2, "b"]] and answer["columns"] == ["id", "v"], answer
    assert (answer["rows_affected"], answer["last_insert_id"], answer["row_count"]) == (2, 2, 2), answer
    objects = c.ok("UPDATE t SET v = v || '!' RETURNING v", format="objects")
    assert objects["rows"] == [{"v": "a!"}, {"v": "b!"}], objects


@scenario(shared=True)
def integers_are_exact_over_64_bits_in_both_directions(c):
    table(c, "v INTEGER")
    values = [0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -2**53 - 1, INT_MAX - 1, INT_MAX, INT_MIN, INT_MIN + 1]
    c.ok(statements=[{"sql": "INSERT INTO t VALUES (?)", "params": [v]} for v in values])
    answer = c.query("SELECT v FROM t ORDER BY rowid")
    assert [r[0] for r in answer.rows] == values, answer.text
    assert str(INT_MIN) in answer.text and "e+" not in answer.text, answer.text
    assert [r[0] for r in c.query("SELECT v FROM t WHERE v = ?", [INT_MAX]).rows] == [INT_MAX]


@scenario(shared=True, cases={"above": ("9223372036854775808",), "below": ("-9223372036854775809",),
                              "far": ("1" + "0" * 30,)})
def integers_beyond_64_bits_are_bad_requests(c, text):
    raw_query(c, '{"sql":"SELECT ?","params":[%s]}' % text).must_fail(400, "BAD_REQUEST")


@scenario(shared=True)
def reals_come_back_exactly_and_stay_reals(c):
    values = [1.0, -0.0, 0.1, 1 / 3, 1e300, 1e-300, 5e-324, 1.7976931348623157e308, 123456789.125, 1e15, 1e16, 1e17]
    for v in values:
        answer = c.query("SELECT ?", [v])
        got = answer.value
        assert isinstance(got, float), "%r came back as %s" % (v, answer.text)
        assert got == v and (v != 0 or math.copysign(1, got) == math.copysign(1, v) or v == 0), (v, answer.text)
    assert '"rows":[[1.0]]' in c.query("SELECT 1.0").text.replace(" ", "")
    assert "0.1]" in c.query("SELECT 0.1").text, "shortest form"


@scenario(shared=True)
def infinite_reals_have_a_form_of_their_own(c):
    assert c.query("SELECT 9e999").value == {"$real": "inf"}
    assert c.query("SELECT -9e999").value == {"$real": "-inf"}
    assert c.query("SELECT ?", [{"$real": "inf"}]).value == {"$real": "inf"}
    assert c.query("SELECT typeof(?)", [{"$real": "-inf"}]).value == "real"


@scenario(shared=True)
def text_survives_as_utf8(c):
    values = ["", "plain", "quote \" backslash \\ slash /", "line\nfeed\ttab\r\b\f", "\x01\x1f\x7f",
              "äöü ß €", "日本語", "🐻 grizzly", "e\u0301", "\u2028\u2029\ufeff", "'; DROP TABLE t; --"]
    for v in values:
        assert c.query("SELECT ?", [v]).value == v, repr(v)
    assert c.query("SELECT '🐻' AS \"ключ\"").must()["columns"] == ["ключ"]


@scenario(shared=True)
def text_with_a_nul_inside_survives_as_a_parameter(c):
    assert c.query("SELECT ?", ["a\u0000b"]).value == "a\u0000b"
    assert c.query("SELECT length(CAST(? AS BLOB))", ["a\u0000b"]).value == 3


@scenario(shared=True)
def blobs_survive_as_base64(c):
    for v in (b"", b"\0", b"\xff\xfe\xfd", bytes(range(256)), b"x" * 100000):
        assert c.query("SELECT ?", [v]).value == encode(v), v[:10]
    assert c.query("SELECT typeof(?)", [b"1"]).value == "blob"


@scenario(shared=True, cases={
    "not_base64": ('{"$blob":"!!!"}',), "bad_padding": ('{"$blob":"QQ"}',), "number": ('{"$blob":1}',),
    "unknown_wrapper": ('{"$date":"2020"}',), "two_keys": ('{"$blob":"","x":1}',), "array": ("[1]",),
    "empty_object": ("{}",), "unknown_real": ('{"$real":"nan"}',)})
def parameter_values_of_no_type_are_bad_requests(c, value):
    raw_query(c, '{"sql":"SELECT ?","params":[%s]}' % value).must_fail(400, "BAD_REQUEST")


@scenario(shared=True)
def booleans_and_null_are_parameters(c):
    assert c.query("SELECT ?, ?, ?, typeof(?)", [True, False, None, True]).rows == [[1, 0, None, "integer"]]


@scenario(shared=True)
def parameters_by_position_and_name(c):
    assert c.query("SELECT ?2, ?1", [1, 2]).rows == [[2, 1]]
    assert c.query("SELECT :a, @b, $c, :a", {"a": 1, "b": 2, "c": 3}).rows == [[1, 2, 3, 1]]
    assert c.query("SELECT :a, @b, $c", {":a": 1, "@b": 2, "$c": 3}).rows == [[1, 2, 3]]


@scenario(shared=True, cases={
    "too_few": ("SELECT ?, ?", [1]), "too_many": ("SELECT ?", [1, 2]), "none_given": ("SELECT ?", None),
    "none_wanted": ("SELECT 1", [1]), "unknown_name": ("SELECT :a", {"b": 1}),
    "missing_name": ("SELECT :a, :b", {"a": 1}), "surplus_name": ("SELECT :a", {"a": 1, "b": 2})})
def wrong_parameter_counts_are_bad_requests(c, sql, params):
    answer = c.query(sql, params)
    assert answer.http == 400 and answer.code in ("BAD_REQUEST", "SQL_ERROR"), answer.text


@scenario(shared=True)
def objects_format_gives_one_object_per_row(c):
    answer = c.ok("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL", format="objects")
    assert answer["rows"] == [{"a": 1, "b": "x"}, {"a": 2, "b": None}], answer
    assert answer["columns"] == ["a", "b"] and answer["row_count"] == 2, answer


@scenario(shared=True)
def ndjson_format_gives_one_object_a_line(c):
    answer = c.query("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL", format="ndjson")
    assert answer.http == 200, answer.text
    lines = answer.text.splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1, "b": "x"}, {"a": 2, "b": None}], lines
    assert "ndjson" in answer.headers["Content-Type"], answer.headers["Content-Type"]


@scenario(shared=True)
def ndjson_of_nothing_is_empty_and_errors_keep_their_shape(c):
    assert c.query("SELECT 1 WHERE 0", format="ndjson").text.strip() == ""
    c.query("SELEC", format="ndjson").must_fail(400, "SQL_ERROR")


@scenario(shared=True)
def rows_format_is_the_default(c):
    assert c.ok("SELECT 1", format="rows")["rows"] == c.ok("SELECT 1")["rows"]


@scenario(shared=True)
def statements_answer_with_one_result_each(c):
    table(c, "id INTEGER PRIMARY KEY, v")
    answer = c.ok(statements=[{"sql": "INSERT INTO t(v) VALUES (?)", "params": ["a"]},
                              {"sql": "INSERT INTO t(v) VALUES (:v) RETURNING id", "params": {"v": "b"}},
                              {"sql": "SELECT count(*) AS n FROM t"}])
    results = answer["results"]
    assert len(results) == 3 and answer["lsn"] > 0 and "rows" not in answer, answer
    assert (results[0]["rows_affected"], results[0]["last_insert_id"]) == (1, 1), results
    assert results[1]["rows"] == [[2]], results
    assert results[2]["rows"] == [[2]] and results[2]["columns"] == ["n"], results


@scenario(shared=True)
def several_reads_see_one_snapshot_and_give_results(c):
    answer = c.ok("SELECT 1 AS a; SELECT 2 AS b;")
    assert [r["rows"] for r in answer["results"]] == [[[1]], [[2]]], answer
    one = c.ok(statements=[{"sql": "SELECT 1"}])
    assert len(one["results"]) == 1, one


@scenario(shared=True)
def sql_with_several_statements_is_one_transaction(c):
    table(c, "id INTEGER PRIMARY KEY, v")
    c.ok("INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')")
    failed = c.query("INSERT INTO t VALUES (3, 'c'); INSERT INTO t VALUES (1, 'again')").must_fail(409, "CONSTRAINT")
    assert failed["statement"] == 1, failed
    assert c.query("SELECT count(*) FROM t").value == 2


@scenario(shared=True)
def failing_statement_is_named_and_undoes_all(c):
    table(c, "id INTEGER PRIMARY KEY")
    statements = [{"sql": "INSERT INTO t VALUES (1)"}, {"sql": "INSERT INTO t VALUES (2)"}]
    failed = c.query(statements=statements + [{"sql": "INSERT INTO nowhere VALUES (3)"}]).must_fail(400, "SQL_ERROR")
    assert failed["statement"] == 2 and "nowhere" in failed["message"], failed
    assert c.query("SELECT count(*) FROM t").value == 0


@scenario(shared=True)
def later_statement_may_use_what_an_earlier_one_creates(c):
    c.ok("DROP TABLE IF EXISTS fresh")
    answer = c.ok("CREATE TABLE fresh(v); INSERT INTO fresh VALUES (7); SELECT v FROM fresh")
    assert answer["results"][2]["rows"] == [[7]], answer


@scenario(shared=True)
def writes_with_reads_inside_are_atomic_for_readers(c):
    table(c, "v")
    c.ok("INSERT INTO t VALUES (100), (-100)")
    for _ in range(20):
        c.ok(statements=[{"sql": "UPDATE t SET v = v - 1 WHERE rowid = 1"},
                         {"sql": "UPDATE t SET v = v + 1 WHERE rowid = 2"}])
        assert c.query("SELECT sum(v) FROM t").value == 0


@scenario(shared=True)
def ddl_with_rows_in_one_transaction_rolls_back_together(c):
    c.ok("DROP TABLE IF EXISTS half")
    c.query("CREATE TABLE half(v UNIQUE); INSERT INTO half VALUES (1), (1)").must_fail(409, "CONSTRAINT")
    c.query("SELECT * FROM half").must_fail(400, "SQL_ERROR")


@scenario(shared=True, cases={
    "unique": ("INSERT INTO t VALUES (1, 5, 1)",), "check": ("INSERT INTO t VALUES (2, -5, 1)",),
    "not_null": ("INSERT INTO t VALUES (3, 5, NULL)",), "or_abort": ("INSERT OR ABORT INTO t VALUES (1, 5, 1)",),
    "or_rollback": ("INSERT OR ROLLBACK INTO t VALUES (1, 5, 1)",), "or_fail": ("INSERT OR FAIL INTO t VALUES (1, 5, 1)",)})
def constraints_answer_409(c, sql):
    table(c, "id INTEGER PRIMARY KEY, v CHECK (v > 0), w NOT NULL")
    c.ok("INSERT INTO t VALUES (1, 1, 1)")
    c.query(sql).must_fail(409, "CONSTRAINT")
    assert c.query("SELECT count(*) FROM t").value == 1


@scenario(shared=True)
def or_rollback_of_one_request_harms_no_other(c):
    """Requests share a transaction inside: ON CONFLICT ROLLBACK must undo its own request alone."""
    from load import Load
    table(c, "id INTEGER PRIMARY KEY", "hit")
    c.ok("INSERT INTO hit VALUES (1)")
    load = Load(c, writers=4, name="rollback")
    for _ in range(50):
        c.query("INSERT OR ROLLBACK INTO hit VALUES (1)").must_fail(409, "CONSTRAINT")
    load.wait_more(50)
    load.stop()
    assert not load.errors, load.errors
    load.verify()


@scenario(shared=True)
def foreign_keys_when_declared_deferred_fail_the_request(c):
    c.ok("DROP TABLE IF EXISTS child; DROP TABLE IF EXISTS parent; CREATE TABLE parent(id INTEGER PRIMARY KEY);"
         "CREATE TABLE child(p REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)")
    answer = c.query("INSERT INTO child VALUES (99)")
    count = c.query("SELECT count(*) FROM child").value
    assert (answer.ok and count == 1) or (answer.code == "CONSTRAINT" and count == 0), (answer.text, count)
    c.ok("DROP TABLE child; DROP TABLE parent")


@scenario(shared=True, cases={
    "syntax": ("SELEC 1", "syntax"), "no_table": ("SELECT * FROM missing_table", "missing_table"),
    "no_column": ("SELECT missing_column", "missing_column"), "no_function": ("SELECT missing_fn(1)", "missing_fn"),
    "unfinished": ("SELECT 'abc", ""), "runtime": ("SELECT json('{bad')", "")})
def sql_errors_answer_400_with_the_reason(c, sql, word):
    assert word in c.query(sql).must_fail(400, "SQL_ERROR")["message"]


@scenario(shared=True, cases={"empty": ("",), "blank": ("  \n ",), "comment": ("-- nothing",), "semicolons": (";;",)})
def sql_without_a_statement_is_an_error(c, sql):
    answer = c.query(sql)
    assert answer.http == 400 and answer.code in ("BAD_REQUEST", "SQL_ERROR"), answer.text
    assert c.query("SELECT 1").value == 1


@scenario(shared=True, cases={
    "begin": ("BEGIN",), "begin_immediate": ("BEGIN IMMEDIATE",), "commit": ("COMMIT",), "end": ("END",),
    "rollback": ("ROLLBACK",), "savepoint": ("SAVEPOINT s",), "release": ("RELEASE s",)})
def transaction_control_is_forbidden_and_points_to_statements(c, sql):
    assert "statements" in c.query(sql).must_fail(403, "FORBIDDEN")["message"]


@scenario(shared=True, cases={"commit": ("COMMIT",), "rollback": ("ROLLBACK",), "begin": ("BEGIN",)})
def transaction_control_inside_a_batch_is_an_error_and_undoes_it(c, sql):
    table(c, "v")
    answer = c.query("INSERT INTO t VALUES (1); %s; INSERT INTO t VALUES (2)" % sql)
    assert answer.http in (400, 403) and answer.code in ("FORBIDDEN", "BAD_REQUEST", "SQL_ERROR"), answer.text
    assert c.query("SELECT count(*) FROM t").value == 0


@scenario(shared=True, cases={
    "attach": ("ATTACH '/tmp/x.db' AS x",), "detach": ("DETACH main",),
    "load_extension": ("SELECT load_extension('/tmp/x.so')",), "vacuum_into": ("VACUUM INTO '/tmp/grizzly-x.db'",),
    "journal_mode": ("PRAGMA journal_mode=WAL",), "locking_mode": ("PRAGMA locking_mode=EXCLUSIVE",),
    "page_size": ("PRAGMA page_size=512",), "synchronous": ("PRAGMA synchronous=OFF",),
    "writable_schema": ("PRAGMA writable_schema=ON",), "temp_store_directory": ("PRAGMA temp_store_directory='/'",),
    "mmap_size": ("PRAGMA mmap_size=0",), "cache_spill": ("PRAGMA cache_spill=1",)})
def denied_sql_is_forbidden(c, sql):
    c.query(sql).must_fail(403, "FORBIDDEN")
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def denied_sql_in_a_batch_undoes_the_batch(c):
    table(c, "v")
    answer = c.query("INSERT INTO t VALUES (1); PRAGMA journal_mode=DELETE")
    assert answer.http == 403 and answer.code == "FORBIDDEN", answer.text
    assert c.query("SELECT count(*) FROM t").value == 0


@scenario(shared=True)
def schema_tables_cannot_be_edited(c):
    answer = c.query("DELETE FROM sqlite_master")
    assert answer.http in (400, 403), answer.text


@scenario(shared=True)
def vacuum_runs_alone_and_changes_nothing_visible(c):
    table(c, "v")
    c.ok("INSERT INTO t SELECT randomblob(500) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
         "WHERE i<2000) SELECT i FROM n)")
    before = c.query("SELECT count(*), sum(length(v)) FROM t").rows
    c.ok("DELETE FROM t WHERE rowid % 2")
    c.ok("VACUUM")
    after = c.query("SELECT count(*), sum(length(v)) FROM t").rows
    assert after == [[before[0][0] // 2, before[0][1] // 2]], (before, after)
    c.wait_converged()


@scenario(shared=True)
def schema_changed_by_another_request_is_seen_at_once(c):
    """Connections keep a parsed schema: a request that fits the new table only must not be judged by the old one."""
    for _ in range(5):
        for columns in ("a", "a, b", "a, b, c"):
            count = columns.count(",") + 1
            values = ", ".join("?" * count)
            c.ok("DROP TABLE IF EXISTS turns; CREATE TABLE turns(%s)" % columns)
            c.ok("INSERT INTO turns VALUES (%s)" % values, list(range(count)))
            c.ok("INSERT INTO turns(%s) VALUES (%s)" % (columns, values), list(range(count)))
            assert len(c.query("SELECT * FROM turns").rows[0]) == count


@scenario(shared=True, cases={
    "empty": (b"",), "no_json": (b"SELECT 1",), "cut": (b'{"sql":"SELECT 1"',), "array": (b'["SELECT 1"]',),
    "text": (b'"SELECT 1"',), "null": (b"null",), "number": (b"1",), "trailing": (b'{"sql":"SELECT 1"} x',),
    "no_sql": (b"{}",), "deep": (b'{"sql":' + b"[" * 100000,), "sql_number": (b'{"sql":1}',),
    "sql_null": (b'{"sql":null}',), "both": (b'{"sql":"SELECT 1","statements":[{"sql":"SELECT 1"}]}',),
    "unknown_key": (b'{"sql":"SELECT 1","sqll":1}',), "params_number": (b'{"sql":"SELECT 1","params":1}',),
    "params_text": (b'{"sql":"SELECT ?","params":"x"}',), "statements_object": (b'{"statements":{"sql":"SELECT 1"}}',),
    "statements_empty": (b'{"statements":[]}',), "statement_text": (b'{"statements":["SELECT 1"]}',),
    "statement_without_sql": (b'{"statements":[{"params":[]}]}',),
    "statement_unknown_key": (b'{"statements":[{"sql":"SELECT 1","format":"rows"}]}',),
    "format": (b'{"sql":"SELECT 1","format":"xml"}',), "format_number": (b'{"sql":"SELECT 1","format":1}',),
    "consistency": (b'{"sql":"SELECT 1","consistency":"strong"}',),
    "consistency_number": (b'{"sql":"SELECT 1","consistency":1}',),
    "min_lsn_negative": (b'{"sql":"SELECT 1","consistency":"session","min_lsn":-1}',),
    "min_lsn_text": (b'{"sql":"SELECT 1","consistency":"session","min_lsn":"1"}',),
    "timeout_negative": (b'{"sql":"SELECT 1","timeout_ms":-1}',),
    "timeout_real": (b'{"sql":"SELECT 1","timeout_ms":1.5}',), "token_number": (b'{"sql":"SELECT 1","token":1}',),
    "invalid_utf8": (b'{"sql":"SELECT \'\xff\'"}',), "invalid_utf8_param": (b'{"sql":"SELECT ?","params":["\xc3\x28"]}',),
    "overlong_utf8": (b'{"sql":"SELECT \'\xc0\x80\'"}',), "surrogate": (b'{"sql":"SELECT \'\\ud800\'"}',),
    "nul_in_sql": (b'{"sql":"SELECT 1\\u0000; DROP TABLE t"}',)})
def malformed_requests_answer_400(c, body):
    raw_query(c, body).must_fail(400, "BAD_REQUEST")
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def token_in_the_body_is_accepted(c):
    answer = c.client().request("POST", "/query", json.dumps({"sql": "SELECT 1", "token": c.token}), token=None)
    assert answer.value == 1
    both = c.client().request("POST", "/query", json.dumps({"sql": "SELECT 1", "token": c.token}))
    assert both.value == 1


@scenario(shared=True, cases={
    "none": (None, None), "wrong_header": ("wrong", None), "wrong_body": (None, "wrong"),
    "wrong_header_right_body": ("wrong", True), "right_header_wrong_body": (True, "wrong"), "empty_header": ("", None),
    "empty_body": (None, ""), "longer": ("{token}x", None), "prefix": ("{cut}", None)})
def without_the_right_token_nothing_is_done(c, header, body):
    table(c, "v")

    def fill(text):
        return c.token if text is True else text.format(token=c.token, cut=c.token[:-1])
    request = {"sql": "INSERT INTO t VALUES (1)"}
    if body is not None:
        request["token"] = fill(body)
    answer = c.client().request("POST", "/query", json.dumps(request), token=None if header is None else fill(header))
    answer.must_fail(401, "UNAUTHORIZED")
    assert c.token not in answer.text
    assert c.query("SELECT count(*) FROM t").value == 0


@scenario(shared=True, cases={"basic": ("Basic %s",), "bare": ("%s",), "no_value": ("Bearer",)})
def other_authorization_schemes_are_refused(c, form):
    value = form % c.token if "%" in form else form
    c.client().request("POST", "/query", '{"sql":"SELECT 1"}', {"Authorization": value}, token=None).must_fail(
        401, "UNAUTHORIZED")


@scenario(shared=True)
def runaway_query_times_out_while_others_are_served(c):
    import threading
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(c.query(endless, timeout_ms=1500 * c.ctx.slow)))
               for _ in range(3)]
    for t in threads:
        t.start()
    served = 0
    while any(t.is_alive() for t in threads):
        assert c.query("SELECT 1").value == 1
        served += 1
    for t in threads:
        t.join()
    for a in answers:
        a.must_fail(504, "TIMEOUT")
    assert len(answers) == 3 and served > 20, (len(answers), served)
    c.ctx.notes.append("%d served meanwhile" % served)


@scenario(shared=True)
def runaway_write_times_out_and_changes_nothing(c):
    table(c, "v")
    sql = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n"
    c.query(sql, timeout_ms=700).must_fail(504, "TIMEOUT")
    assert c.query("SELECT count(*) FROM t").value == 0
    c.ok("INSERT INTO t VALUES (1)")


@scenario(shared=True)
def sql_text_over_the_limit_is_too_large(c):
    c.query("SELECT '%s'" % ("x" * (1 << 20))).must_fail(413, "TOO_LARGE")
    assert len(c.query("SELECT '%s'" % ("x" * 900000)).value) == 900000


@scenario(shared=True)
def many_statements_in_one_request(c):
    table(c, "v")
    c.ok(statements=[{"sql": "INSERT INTO t VALUES (?)", "params": [i]} for i in range(5000)])
    assert c.query("SELECT count(*), sum(v) FROM t").rows == [[5000, 5000 * 4999 // 2]]
    answer = c.query(statements=[{"sql": "SELECT 1"}] * 10001)
    assert answer.http in (400, 413), answer.text


@scenario(shared=True)
def wide_and_deep_results(c):
    assert len(c.query("SELECT " + ",".join("%d" % i for i in range(1900))).rows[0]) == 1900
    big = c.query("SELECT hex(zeroblob(2000000))").value
    assert len(big) == 4000000


@scenario(shared=True)
def unusual_column_names_are_quoted(c):
    columns = c.ok('SELECT 1 AS "a""b", 2 AS "", 3 AS "new\nline", 4 AS "a""b"')["columns"]
    assert columns == ['a"b', "", "new\nline", 'a"b'], columns


@scenario(shared=True)
def null_bytes_and_bad_utf8_from_the_database_still_give_json(c):
    answer = c.query("SELECT CAST(x'61ff62' AS TEXT), CAST(x'610062' AS TEXT)")
    assert answer.ok, answer.text
    assert answer.rows[0][0] == "a\ufffdb", answer.text


@scenario(shared=True)
def pragma_reads_are_allowed(c):
    table(c, "a INTEGER, b TEXT")
    assert [r[1] for r in c.query("PRAGMA table_info(t)").rows] == ["a", "b"]


@scenario(shared=True)
def reads_that_fail_midway_are_errors(c):
    """The error shows after some rows were produced, before anything was sent."""
    c.query("SELECT CASE WHEN i < 10 THEN i ELSE abs(-9223372036854775807 - 1) END FROM (WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20) SELECT i FROM n)").must_fail(400, "SQL_ERROR")


@scenario(shared=True)
def repeated_keys_and_order_do_not_matter(c):
    assert raw_query(c, '{"format":"rows","params":[2],"sql":"SELECT ?"}').value == 2


@scenario(shared=True, cases={"linearizable": ("linearizable",), "session": ("session",), "stale": ("stale",)})
def every_consistency_reads_on_the_master(c, consistency):
    assert c.query("SELECT 1", consistency=consistency).value == 1


@scenario(shared=True)
def time_budget_beyond_the_maximum_is_refused_or_capped(c):
    answer = c.query("SELECT 1", timeout_ms=10**12)
    assert answer.ok or answer.http == 400, answer.text
