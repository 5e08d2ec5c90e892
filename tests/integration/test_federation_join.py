"""Tables of other nodes inside statements that run here: joins, what is sent for them, and what goes wrong.

A asks, B and C have tables; A knows their tokens. That answers are those of one database says test_federation_diff.py; here
it is how they come about: requests, plans, changed schemas, failures, ends.
"""
import json
import os
import shutil
import signal
import socket
import threading
import time

from client import Client
from cluster import rss_kb, wait_until
from harness import scenario

COUNT_TO = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "


def address(c):
    return "127.0.0.1:%d" % c.port


def token_copy(c):
    """Where others have the token of c, whose own file is c's to read."""
    return os.path.join(c.ctx.directory, "token-of-%d" % c.port)


def knows(*others, **more):
    for o in others:
        shutil.copy(os.path.join(o.data_dir, "token"), token_copy(o))
    settings = {"remote": {"nodes": {address(o): {"token_file": token_copy(o)} for o in others}}}
    settings.update(more)
    return settings


def two(ctx, rows=1000, replicas=0, **more):
    """(a, b): b has big(id, name, amount, grp), a has few(id, x) of 20 rows."""
    b = ctx.cluster(replicas=0).start()
    a = ctx.cluster(replicas=replicas, settings=knows(b, **more)).start()
    b.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(COUNT_TO % rows + "INSERT INTO big SELECT i, 'name of ' || i, i * 0.5, i % 100 FROM n")
    a.ok("CREATE TABLE few(id INTEGER PRIMARY KEY, x)")
    a.ok(COUNT_TO % 20 + "INSERT INTO few SELECT i * 3, i FROM n")
    return a, b


def at(c, table="big"):
    return "%s@%s" % (address(c), table)


def remote_of(answer, c):
    found = [r for r in answer["remote"] if r["node"] == address(c)]
    assert len(found) == 1, answer["remote"]
    return found[0]


@scenario(start=False)
def joins_ask_by_keys_or_fetch_once(ctx):
    a, b = two(ctx, rows=50000)
    join = "SELECT f.id, r.name FROM few f JOIN %s r ON r.id = f.id ORDER BY 1" % at(b)
    expected = [[3 * i, "name of %d" % (3 * i)] for i in range(1, 21)]
    first = a.ok(join)
    assert first["rows"] == expected and remote_of(first, b)["requests"] <= 3, first["remote"]
    again = a.ok(join)  # the schema is known
    assert again["rows"] == expected
    assert (remote_of(again, b)["requests"], remote_of(again, b)["rows"]) == (1, 20), again["remote"]

    a.ok("CREATE TABLE many(id INTEGER PRIMARY KEY, k INTEGER)")
    a.ok(COUNT_TO % 3000 + "INSERT INTO many SELECT i, i * 16 FROM n")
    keys = a.ok("SELECT count(r.id), sum(r.amount) FROM many m LEFT JOIN %s r ON r.id = m.k" % at(b))
    assert keys["rows"] == [[3000, sum(i * 16 * 0.5 for i in range(1, 3001))]]
    assert remote_of(keys, b)["rows"] == 3000 and remote_of(keys, b)["requests"] <= 3000 // 500 + 3, keys["remote"]
    a.ok(COUNT_TO % 40000 + "INSERT INTO many SELECT i, i FROM n WHERE i > 3000")
    whole = a.ok("SELECT count(r.id) FROM many m LEFT JOIN %s r ON r.id = m.k" % at(b))
    assert whole["rows"] == [[40000]]
    assert remote_of(whole, b)["requests"] <= 3 and remote_of(whole, b)["rows"] == 50000, whole["remote"]
    unindexed = a.ok("SELECT count(*) FROM few f JOIN %s r ON r.grp = f.x" % at(b))
    assert unindexed["rows"] == [[20 * 500]] and remote_of(unindexed, b)["requests"] <= 2, unindexed["remote"]


@scenario(start=False)
def conditions_order_and_limits_are_sent(ctx):
    a, b = two(ctx, rows=5000)
    for sql, params, rows in (
            ("SELECT f.id FROM few f, (SELECT id FROM %s WHERE id > 4990) r", None, 10),
            ("SELECT f.id FROM few f, %s r WHERE r.id BETWEEN ? AND ? AND f.id = 3", [10, 12], 3),
            ("SELECT f.id FROM few f, %s r WHERE r.name LIKE 'name of 499_' AND f.id = 3", None, 10),
            ("SELECT f.id FROM few f, %s r WHERE r.name GLOB 'name of 499*' AND f.id = 3", None, 11),
            ("SELECT * FROM few f, (SELECT * FROM %s ORDER BY id DESC LIMIT 3 OFFSET 2) r", None, 3),
            ("SELECT f.id FROM few f WHERE EXISTS (SELECT 1 FROM %s r WHERE r.id = f.id AND r.grp = 6)", None, 1),
            ("SELECT f.id, (SELECT count(*) FROM %s) FROM few f", None, 1),
            ("SELECT f.id, g.n FROM few f JOIN (SELECT grp, count(*) AS n FROM %s GROUP BY grp) g ON g.grp = f.x", None,
             100),
            ("WITH g AS (SELECT grp, sum(amount) AS s FROM %s GROUP BY grp HAVING grp < 5) "
             "SELECT f.id, s FROM few f JOIN g ON g.grp = f.x", None, 5),
            ("SELECT count(*) FROM few WHERE id IN (SELECT id FROM %s WHERE id < 30)", None, 29),
            ("SELECT count(*) FROM (SELECT id FROM %s WHERE id IN (SELECT id FROM few)) x", None, 20)):
        answer = a.ok(sql % at(b), params)
        assert remote_of(answer, b)["rows"] <= rows, (sql, answer["remote"])
    plan = a.ok("EXPLAIN FEDERATED SELECT f.id, r.name FROM few f LEFT JOIN %s r ON r.id = f.id" % at(b))
    assert plan["columns"] == ["table", "node", "sql", "strategy", "rows"] and plan["row_count"] == 1, plan
    assert plan["rows"][0][0] == at(b) and "keys" in plan["rows"][0][3] and '"name"' in plan["rows"][0][2], plan
    assert '"amount"' not in plan["rows"][0][2] and plan["rows"][0][4] == 5000, plan
    plan = a.ok("EXPLAIN FEDERATED SELECT count(*) FROM %s" % at(b))  # also when it would be sent whole
    assert plan["row_count"] == 1 and remote_of(plan, b)["rows"] == 0, plan


@scenario(start=False)
def three_nodes_and_any_of_them_itself(ctx):
    c = ctx.cluster(replicas=0).start()
    b = ctx.cluster(replicas=0).start()
    a = ctx.cluster(replicas=0).start()
    for one in (a, b, c):
        one.config["remote"] = knows(a, b, c)["remote"]
        one.write_config()
        one.stop()
    for one in (a, b, c):
        one.start()
    for i, one in enumerate((a, b, c)):
        one.ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'x%d'), (2, 'y%d'), (%d, NULL)" % (
            i, i, i + 7))
    query = "SELECT x.v, y.v, z.v FROM %s x JOIN %s y USING (id) JOIN %s z USING (id) ORDER BY id"
    names = {0: at(a, "t"), 1: at(b, "t"), 2: at(c, "t")}
    for asked in (a, b, c):  # one of the three is itself, by its address
        answer = asked.ok(query % (names[0], names[1], names[2]))
        assert answer["rows"] == [["x0", "x1", "x2"], ["y0", "y1", "y2"]], answer
        assert [r["node"] for r in answer["remote"]] == [address(a), address(b), address(c)]
    answer = a.ok("SELECT t.v, y.v, t2.v FROM t JOIN %s y USING (id) JOIN %s AS t2 USING (id) WHERE id = 2" % (
        names[1], names[2]))
    assert answer["rows"] == [["y0", "y1", "y2"]]
    assert a.ok("SELECT count(*) FROM (SELECT v FROM t UNION SELECT v FROM %s UNION ALL SELECT v FROM %s)" % (
        names[1], names[2]))["rows"] == [[5 + 3]]


@scenario(start=False)
def a_changed_schema_is_noticed(ctx):
    a, b = two(ctx)
    join = "SELECT f.id, r.* FROM few f JOIN %s r ON r.id = f.id WHERE f.id = 3" % at(b)
    assert a.ok(join)["columns"] == ["id", "id", "name", "amount", "grp"]
    b.ok("ALTER TABLE big ADD COLUMN more DEFAULT 'more'")
    answer = a.ok(join)
    assert answer["columns"][-1] == "more" and answer["rows"][0][-1] == "more", answer
    b.ok("ALTER TABLE big ADD COLUMN most DEFAULT 'most'")
    assert a.ok("SELECT r.most FROM few f JOIN %s r ON r.id = f.id WHERE f.id = 3" % at(b))["rows"] == [["most"]]
    b.ok("ALTER TABLE big DROP COLUMN most")
    b.ok("ALTER TABLE big DROP COLUMN amount")
    assert a.ok(join)["rows"] == [[3, 3, "name of 3", 3, "more"]]
    b.ok("DROP TABLE big")
    a.query(join).must_fail(502, "REMOTE_ERROR")
    b.ok("CREATE TABLE big(id TEXT COLLATE NOCASE, w); INSERT INTO big VALUES ('3', 'text'), ('03', 'no')")
    both = [[3, "3", "text"], [3, "03", "no"]]  # compared as numbers
    assert a.ok(join)["rows"] == both
    stop = threading.Event()
    failures = []

    def change():
        client = Client("127.0.0.1", b.port, b.token)
        number = 0
        while not stop.is_set():
            number += 1
            client.query("CREATE TABLE other%d(x); DROP TABLE other%d" % (number, number)).must()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(100):  # it comes right, or says so
            answer = a.query(join)
            if answer.ok:
                assert answer.json["rows"] == both, answer.json
            elif "schema" not in answer.message:
                failures.append(answer.text)
    finally:
        stop.set()
        thread.join()
    assert not failures, failures


@scenario(start=False)
def errors_name_node_and_table(ctx):
    a, b = two(ctx)
    a.query("SELECT * FROM few JOIN %s r ON 1" % at(b, "missing")).must_fail(502, "REMOTE_ERROR")
    for sql, http, code, message in (
            ("SELECT * FROM few JOIN %s r ON 1" % at(b, "missing"), 502, "REMOTE_ERROR",
             "%s: that node has no such table" % at(b, "missing")),
            ("SELECT * FROM few JOIN 127.0.0.1:1@t r ON 1", 502, "REMOTE_ERROR",
             "127.0.0.1:1@t: that node cannot be reached"),
            ("SELECT * FROM few JOIN 192.0.2.1:1@t r ON 1", 403, "FORBIDDEN", "192.0.2.1:1@t: that node may not be"),
            ("SELECT r.missing FROM few JOIN %s r ON 1" % at(b), 400, "SQL_ERROR", "no such column: r.missing"),
            ("SELECT 1 FROM few, %s r WHERE r.id = ?" % at(b), 400, "BAD_REQUEST", "1 parameter expected, 0 given"),
            ("DELETE FROM few WHERE id IN (SELECT id FROM %s)" % at(b), 400, "SQL_ERROR", at(b) + ": a table of this"),
            ("SELECT count(*) FROM few; SELECT * FROM few JOIN %s r ON 1" % at(b, "missing"), 502, "REMOTE_ERROR",
             at(b, "missing"))):
        answer = a.query(sql)
        answer.must_fail(http, code)
        assert answer.message.startswith(message), answer.text
    a.ok('CREATE VIEW "%s" AS SELECT 1' % at(b))
    hidden = a.query("SELECT * FROM few JOIN %s r ON 1" % at(b))
    hidden.must_fail(400, "SQL_ERROR")
    a.ok('DROP VIEW "%s"' % at(b))
    with open(token_copy(b), "w") as f:
        f.write("certainly-not-the-token\n")
    refused = a.query("SELECT * FROM few JOIN %s r ON r.id = few.id" % at(b))
    refused.must_fail(502, "REMOTE_ERROR")
    assert "refused the token" in refused.message, refused.text


@scenario(start=False, timeout_s=120)
def a_lost_node_never_shortens_an_answer(ctx):
    a, b = two(ctx, rows=300000)
    client = Client("127.0.0.1", a.port, a.token, timeout_s=60, keep_alive=False)
    got = []

    def ask():
        try:
            got.append(client.query("SELECT r.*, (SELECT count(*) FROM few) FROM %s r, few f WHERE f.id = 3" % at(b)))
        except Exception as e:  # pylint: disable=broad-except
            got.append(e)

    for attempt in range(3):
        del got[:]
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: b.status() and a.node_status("node1"), 20, "both answer")
        b.kill("node1")
        thread.join()
        if not isinstance(got[0], Exception) and got[0].ok:
            assert got[0].json["row_count"] == 300000 and got[0].json["status"] == "ok"
        elif not isinstance(got[0], Exception):
            assert got[0].code in ("REMOTE_ERROR", None) or got[0].json["code"] == "REMOTE_ERROR", got[0].text[-300:]
        b.wait_writable()
        ctx.note("attempt %d: %s" % (attempt, type(got[0]).__name__))
    again = a.ok("SELECT count(*) FROM %s r, few f WHERE f.id = 3" % at(b))
    assert again["rows"] == [[300000]]


@scenario(start=False)
def time_outs_and_clients_that_leave_end_the_work(ctx):
    a, b = two(ctx, rows=2000)
    slow = ("SELECT count(*) FROM few f, (SELECT count(*) AS n FROM %s x, %s y, %s z WHERE x.grp + y.grp = z.grp) r" %
            (at(b), at(b), at(b)))
    began = time.monotonic()
    answer = a.query(slow, timeout_ms=300)
    assert answer.code in ("REMOTE_ERROR", "TIMEOUT") and "time" in answer.message, answer.text
    body = json.dumps({"sql": slow, "timeout_ms": 60000}).encode()
    s = socket.create_connection(("127.0.0.1", a.port))
    s.sendall(b"POST /query HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (
        a.token.encode(), len(body), body))
    wait_until(lambda: metric(a, "grizzly_remote_requests_in_flight") >= 1, 10,
               "a request to b")
    s.close()
    wait_until(lambda: metric(a, "grizzly_remote_requests_in_flight") == 0, 10 * ctx.slow, "its end")
    assert time.monotonic() - began < 30 * ctx.slow


def metrics(c):
    return Client("127.0.0.1", c.node_port("node1"), c.token).request("GET", "/metrics").text


def metric(c, name):
    return sum(float(line.split()[-1]) for line in metrics(c).splitlines() if line.startswith(name + " ") or
               line.startswith(name + "{"))


@scenario(start=False)
def rows_are_inserted_from_other_nodes(ctx):
    a, b = two(ctx, replicas=1)
    a.ok("CREATE TABLE copy(id INTEGER PRIMARY KEY, v, w REAL UNIQUE)")
    b.ok("CREATE TABLE odd(id INTEGER PRIMARY KEY, v); INSERT INTO odd VALUES (1, 9223372036854775807), "
         "(2, x'00ff'), (3, NULL), (4, 'nul' || char(0) || 'nul'), (5, 0.1), (6, 9e999)")
    replica = a.replicas()[0] if not callable(a.replicas) else a.replicas()[0]
    node = replica if isinstance(replica, str) else replica["id"]
    done = a.ok("INSERT INTO copy(id, v) SELECT id, v FROM %s" % at(b, "odd"), node=node)
    assert done["rows_affected"] == 6 and remote_of(done, b)["rows"] == 6, done
    query = "SELECT id, quote(v), typeof(v) FROM %s ORDER BY id"
    assert a.ok(query % "copy")["rows"] == b.ok(query % "odd")["rows"]
    a.query("INSERT INTO copy(id, v) SELECT id, v FROM %s" % at(b, "odd")).must_fail(409, "CONSTRAINT")
    done = a.ok("INSERT INTO copy(id, w) SELECT id, amount FROM %s WHERE id <= ? ON CONFLICT(id) DO UPDATE SET w = "
                "excluded.w RETURNING id, w" % at(b), [7])
    assert done["rows"] == [[i, i * 0.5] for i in range(1, 8)] and done["rows_affected"] == 7
    once = dict(sql="INSERT INTO copy(v) SELECT f.x || r.name FROM few f JOIN %s r ON r.id = f.id" % at(b),
                request_id="copy-1")
    first = a.ok(**once)
    b.ok("DELETE FROM big WHERE id = 3")
    assert first["rows_affected"] == 20
    assert a.ok(**once)["lsn"] == first["lsn"] and a.ok("SELECT count(*) FROM copy")["rows"] == [[27]]
    aggregated = a.ok("INSERT INTO copy(id, v) SELECT 1000 + grp, count(*) FROM %s GROUP BY grp" % at(b))
    assert aggregated["rows_affected"] == 100 and remote_of(aggregated, b)["rows"] == 100, aggregated
    for sql in ("WITH q AS (SELECT id FROM %s) INSERT INTO copy(id) SELECT id FROM q",
                "INSERT INTO copy(id) SELECT 1 ON CONFLICT DO UPDATE SET v = (SELECT 1 FROM %s)",
                "UPDATE copy SET v = (SELECT max(id) FROM %s)"):
        a.query(sql % at(b)).must_fail(400, "SQL_ERROR")


@scenario(start=False, timeout_s=120)
def memory_stays_small(ctx):
    a, b = two(ctx, rows=100000)
    node = a.pid("node1")
    a.ok("CREATE TABLE wide(id INTEGER PRIMARY KEY, k INTEGER, x); CREATE INDEX wide_k ON wide(k)")
    a.ok(COUNT_TO % 100000 + "INSERT INTO wide SELECT i, i, i FROM n")
    a.ok("SELECT count(*), sum(x) FROM wide")
    idle = rss_kb(node)
    peak = [0]
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            peak[0] = max(peak[0], rss_kb(node))
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for join in ("JOIN", "LEFT JOIN"):
            answer = a.ok("SELECT count(r.id), sum(w.x) FROM wide w %s %s r ON r.id = w.k" % (join, at(b)))
            assert answer["rows"] == [[100000, 5000050000]]
        answer = a.ok("SELECT r.id, r.name, f.id FROM %s r JOIN few f ON f.id = 3" % at(b))
        assert answer["row_count"] == 100000
    finally:
        stop.set()
        thread.join()
    ctx.note("%d KiB above idle" % (peak[0] - idle))
    assert ctx.sanitizer or peak[0] - idle < 60 * 1024, (peak[0], idle)
