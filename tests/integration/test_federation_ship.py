"""Requests whose tables are all of one other node: host:port@table, sent there whole and answered from there.

A asks, B has the tables; A knows B's token by its cluster.json. Where B must misbehave, a FakeNode stands in for it.
"""
import json
import os
import re
import signal
import socket
import threading

from cluster import Ports, rss_kb, wait_until
from client import Client, read_to_end
from fakes import FakeNode
from harness import scenario

ROWS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) "
        "INSERT INTO %s SELECT i, 'name of row number ' || i, i * 0.5, i %% 100 FROM n")


def two(ctx, **more):
    """(a, b): a knows b's token; b has a small table."""
    b = ctx.cluster(replicas=0, settings=more.pop("b_settings", None)).start()
    a = ctx.cluster(replicas=more.pop("replicas", 0), settings=knows(b, **more)).start()
    b.ok("CREATE TABLE orders(id INTEGER PRIMARY KEY, name TEXT UNIQUE, amount REAL, x)")
    b.ok("INSERT INTO orders VALUES (1, 'one', 1.0, NULL), (2, 'two', 2.5, 9223372036854775807), "
         "(3, 'three', -1e300, x'00ff')")
    return a, b


def knows(b, **more):
    settings = {"remote": {"nodes": {address(b): {"token_file": os.path.join(b.data_dir, "token")}}}}
    settings["remote"].update(more.pop("remote", {}))
    settings.update(more)
    return settings


def address(c, node=None):
    return "127.0.0.1:%d" % (c.port if node is None else c.node_port(node))


def at(c, table="orders"):
    return "%s@%s" % (address(c), table)


def check_remote(answer, c, rows, requests=1):
    remote = answer["remote"]
    assert len(remote) == 1 and remote[0]["node"] == address(c), remote
    assert remote[0]["rows"] == rows and remote[0]["requests"] == requests, remote
    assert remote[0]["bytes"] > 0 and remote[0]["ms"] >= 0, remote


def http_answer(status, body, content_type="application/json"):
    def answer(_, s):
        s.sendall(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            status, content_type.encode(), len(body), body))
        return True
    return answer


@scenario(start=False)
def reads_are_answered_as_if_asked_directly(ctx):
    a, b = two(ctx)
    for sql, params in (
            ("SELECT * FROM %s", None),
            ("SELECT orders.id, name FROM %s WHERE amount < ? ORDER BY id", [2.5]),
            ("SELECT count(*), sum(amount) FROM %s o WHERE o.id > :least", {"least": 1}),
            ("SELECT x FROM %s WHERE name = @name AND x = $x", {"name": "three", "x": b"\x00\xff"}),
            ("WITH orders AS (SELECT id FROM %s WHERE id > 1) SELECT * FROM orders", None),
            ("SELECT l.id FROM %s l JOIN %s AS r ON r.id = l.id + 1 WHERE l.id IN (SELECT id FROM %s)", None),
            ("SELECT 1 FROM %s WHERE 0", None),
            ("SELECT '%%s@t', id FROM %s UNION ALL SELECT name, 7 FROM %s -- at@the:1@end", None),
            ("EXPLAIN QUERY PLAN SELECT * FROM %s WHERE id = 1", None)):
        fill = sql.count("%s") - sql.count("%%s")
        for form in ("rows", "objects"):
            there = b.ok(sql % (("main.orders",) * fill), params, format=form)
            here = a.ok(sql % ((at(b),) * fill), params, format=form)
            assert {k: here[k] for k in ("columns", "types", "rows", "row_count")} == {
                k: there[k] for k in ("columns", "types", "rows", "row_count")}, here
            assert here["status"] == "ok" and here["node"] == "node1" and here["lsn"] == there["lsn"]
            check_remote(here, b, there["row_count"])
        if "EXPLAIN" not in sql:
            lines = a.query(sql % ((at(b),) * fill), params, format="ndjson")
            assert lines.http == 200 and lines.headers["Content-Type"] == "application/x-ndjson"
            assert lines.body == b.query(sql % (("main.orders",) * fill), params, format="ndjson").body
    several = a.ok("SELECT 1 FROM %s; SELECT name FROM %s WHERE id = ?; VALUES (7)" % (at(b), at(b)), [2])
    assert [r["rows"] for r in several["results"]] == [[[1]] * 3, [["two"]], [[7]]], several
    assert several["remote"][0]["rows"] == 5
    several = a.ok(statements=[{"sql": "SELECT name FROM %s WHERE id = ?" % at(b), "params": [3]}])
    assert several["results"][0]["rows"] == [["three"]]


@scenario(start=False)
def every_spelling_of_a_reference(ctx):
    a, b = two(ctx, b_settings={"bind": "localhost"}, remote={"allow": ["Localhost:*"]})
    b.ok('CREATE TABLE "my ""odd"" [t]able"(v); INSERT INTO "my ""odd"" [t]able" VALUES (1)')
    b.ok('CREATE TABLE "order"(v); INSERT INTO "order" VALUES (2)')
    for name, value in (('"my ""odd"" [t]able"', 1), ("`my \"odd\" [t]able`", 1), ("order", 2), ("[order]", 2),
                        ("'order'", 2)):
        assert a.ok("SELECT v FROM %s@%s" % (address(b), name))["rows"] == [[value]], name
        assert a.ok("SELECT x.v FROM %s@%s x" % (address(b), name))["rows"] == [[value]], name
    # No token goes to a name that was allowed and not configured, though it leads to the same node.
    answer = a.query("SELECT * FROM LOCALHOST:%d@orders" % b.port)
    assert "asks for a token" in answer.must_fail(502, "REMOTE_ERROR")["message"], answer.text


@scenario(start=False)
def ipv6_addresses(ctx):
    listener = socket.socket(socket.AF_INET6)
    try:
        listener.bind(("::1", 0))
    except OSError:
        ctx.skip("there is no IPv6 loopback address here")
    fake = FakeNode(http_answer(200, b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1]],"row_count":1,'
                                     b'"lsn":7,"node":"x","time_ms":1.0}'), listener)
    a = ctx.cluster(replicas=0).start()
    answer = a.ok("SELECT a FROM [0:0::1]:%d@t" % fake.port)
    assert answer["rows"] == [[1]] and answer["lsn"] == 7 and answer["node"] == "node1"
    assert answer["remote"][0]["node"] == "[::1]:%d" % fake.port
    assert "authorization" not in fake.requests[0][0].lower(), fake.requests
    assert fake.requests[0][1]["sql"] == 'SELECT a FROM main."t"'
    fake.close()


@scenario(start=False)
def writes_change_the_other_node(ctx):
    a, b = two(ctx)
    answer = a.ok("INSERT INTO %s VALUES (?, ?, ?, ?)" % at(b), [4, "four", 4.0, None])
    assert answer["rows_affected"] == 1 and answer["last_insert_id"] == 4 and answer["node"] == "node1"
    assert answer["lsn"] == b.ok("SELECT 1")["lsn"]
    assert answer["remote"][0]["node"] == address(b)
    assert a.ok("UPDATE %s SET amount = 0 WHERE id > 2" % at(b))["rows_affected"] == 2
    answer = a.ok("UPDATE OR IGNORE %s AS o SET x = 1 WHERE id = 1 RETURNING id, x" % at(b))
    assert answer["rows"] == [[1, 1]] and answer["rows_affected"] == 1
    assert a.ok("INSERT INTO %s SELECT id + 10, name || '+', amount, x FROM %s" % (at(b), at(b)))["rows_affected"] == 4
    assert a.ok("DELETE FROM %s WHERE id > 10; SELECT count(*) FROM %s" % (at(b), at(b)))["results"][1]["rows"] == [[4]]
    # What is wrong with the statement itself keeps its code, and names the node.
    message = a.query("INSERT INTO %s(id) VALUES (1)" % at(b)).must_fail(409, "CONSTRAINT")["message"]
    assert at(b) in message and "UNIQUE" in message, message
    error = a.query(statements=[{"sql": "INSERT INTO %s(id) VALUES (77)" % at(b)},
                                {"sql": "INSERT INTO %s(id) VALUES (1)" % at(b)}]).must_fail(409, "CONSTRAINT")
    assert error["statement"] == 1
    assert b.ok("SELECT count(*) FROM orders")["rows"] == [[4]], "a failed batch left something behind"
    # A request_id goes along: the other node does it once.
    for repeated in (False, True):
        answer = a.ok("INSERT INTO %s(name) VALUES ('once')" % at(b), request_id="federated-1")
        assert answer.get("repeated", False) == repeated and answer["rows_affected"] == 1, answer
    assert b.ok("SELECT count(*) FROM orders WHERE name = 'once'")["rows"] == [[1]]
    assert a.ok("SELECT name FROM sqlite_schema WHERE name = 'orders'")["rows"] == [], "something was made here"


@scenario(start=False)
def what_cannot_be_is_refused(ctx):
    a, b = two(ctx)
    a.ok("CREATE TABLE here(id)")
    for sql, words in (
            ("CREATE VIEW v AS SELECT * FROM %s" % at(b), "not in CREATE VIEW"),
            ("CREATE TRIGGER g AFTER INSERT ON here BEGIN INSERT INTO %s(id) VALUES (1); END" % at(b),
             "not in CREATE TRIGGER"),
            ("CREATE TABLE t AS SELECT * FROM %s" % at(b), "not in CREATE TABLE"),
            ("DROP TABLE %s" % at(b), "not in DROP TABLE"),
            ("SELECT * FROM %s" % at(b, "main.orders"), "no \".\" may follow"),
            ("SELECT * FROM 127.0.0.1:0@t", "must be from 1 to 65535"),
            ("SELECT * FROM 127.0.0.1:80@", "a table's name is expected"),
            ("INSERT INTO %s(id) SELECT id FROM here" % at(b), "may name tables of that node only"),
            ("INSERT INTO %s(id) VALUES (9); INSERT INTO here VALUES (9)" % at(b), "may name tables of that node only"),
            ("EXPLAIN SELECT * FROM here, %s" % at(b), "EXPLAIN FEDERATED"),
            ("SELECT * FROM %s WHERE nonsense" % at(b), "no such column")):
        message = a.query(sql).must_fail(400, "SQL_ERROR")["message"]
        assert words in message, (sql, message)
    assert a.query(statements=[{"sql": "SELECT 1"}, {"sql": "SELECT * FROM h:0@t"}]).must_fail(
        400, "SQL_ERROR")["statement"] == 1
    assert b.ok("SELECT count(*) FROM orders")["rows"] == [[3]] and a.ok("SELECT count(*) FROM here")["rows"] == [[0]]
    # Nobody without a token makes this node ask another.
    a.client().request("POST", "/query", json.dumps({"sql": "SELECT * FROM %s" % at(b)}),
                       token="wrong-wrong-wrong-wrong").must_fail(401, "UNAUTHORIZED")
    # Texts that only look alike stay what they were.
    assert a.ok("SELECT 'a@b', @p, \"id\" FROM here -- h:1@t", {"p": 1})["rows"] == []


@scenario(start=False)
def faults_of_the_other_node_are_named(ctx):
    a, b = two(ctx, remote={"allow": ["192.0.2.1:80"]})
    nobody = Ports(0)
    message = a.query("SELECT * FROM %s" % at(b, "missing")).must_fail(502, "REMOTE_ERROR")["message"]
    assert at(b, "missing") in message and "no such table" in message, message
    answer = a.query("SELECT * FROM %s o, %s" % (at(b), at(b, '"not there"')))
    message = answer.must_fail(502, "REMOTE_ERROR")["message"]
    assert at(b, "not there") in message, message
    message = a.query("SELECT * FROM 127.0.0.1:%d@t" % nobody.base).must_fail(502, "REMOTE_ERROR")["message"]
    assert "127.0.0.1:%d@t: that node cannot be reached" % nobody.base in message, message
    message = a.query("SELECT * FROM no-such-host.invalid:80@t").must_fail(403, "FORBIDDEN")["message"]
    assert "no-such-host.invalid:80" in message and "remote.nodes" in message, message
    message = a.query("SELECT * FROM 192.0.2.1:81@t").must_fail(403, "FORBIDDEN")["message"]
    message = a.query("SELECT * FROM 192.0.2.1:80@t", timeout_ms=2000).must_fail(502, "REMOTE_ERROR")["message"]
    assert message.startswith("192.0.2.1:80@t: "), message
    nobody.release()
    # The time is over: the statement is ended there, too.
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n, %s"
    messages = []
    while not any("TIMEOUT" in m for m in messages):  # its own word comes in time, unless the machine is busy
        messages.append(a.query(endless % at(b), timeout_ms=500).must_fail(502, "REMOTE_ERROR")["message"])
        assert at(b) in messages[-1] and len(messages) < 20, messages
    # A token that was changed there, and its file here.
    token_file = os.path.join(a.data_dir, "token-of-b")
    with open(token_file, "w") as f:
        f.write("not-the-token-of-b-at-all\n")
    a.stop()
    a.config["remote"]["nodes"] = {address(b): {"token_file": token_file}}
    a.write_config()
    a.start()
    message = a.query("SELECT * FROM %s" % at(b)).must_fail(502, "REMOTE_ERROR")["message"]
    assert message == at(b) + ": that node refused the token", message
    with open(token_file, "w") as f:
        f.write(b.token + "\n")
    assert a.ok("SELECT count(*) FROM %s" % at(b))["rows"] == [[3]]
    os.unlink(token_file)
    message = a.query("SELECT * FROM %s" % at(b)).must_fail(502, "REMOTE_ERROR")["message"]
    assert at(b) in message and token_file in message, message


@scenario(start=False)
def broken_answers_are_no_answers(ctx):
    a = ctx.cluster(replicas=0).start()
    good = (b'"columns":["a"],"types":[""],"rows":[[1],[2]],"row_count":2,"lsn":1,"node":"n","time_ms":1.0')
    for body, status, content_type, words in (
            (b"<html>hello</html>", 200, "text/html", "no Grizzly node"),
            (b"<html>gone</html>", 404, "text/html", "no Grizzly node"),
            (b"", 200, "application/json", "no Grizzly node"),
            (b"[1,2]", 200, "application/json", "does not begin with {"),
            (b'{"status":"ok",' + good, 200, "application/json", "its end is missing"),
            (b"{" + good + b"}", 200, "application/json", "neither ok nor error"),
            (b'{"status":"ok",' + good + b"}x", 200, "application/json", "something follows"),
            (b'{"status":"ok","columns":["a"],"rows":[[1],[2}]}', 200, "application/json", "damaged"),
            (b'{"status":"ok","columns":["a"],"rows":[[1],[nul]]}', 200, "application/json", "a value is none"),
            (b'{"status":"ok",' + good + b"}", 500, "application/json", "HTTP 500 that says ok"),
            (b'{"status":"error","code":"OVERLOADED","message":"busy"}', 429, "application/json", "OVERLOADED: busy"),
            (b'{"status":"error","code":"WHAT","message":7}', 500, "application/json", "INTERNAL"),
            (b'{"a":1}\n', 200, "application/x-ndjson", "no Grizzly node")):
        fake = FakeNode(http_answer(status, body, content_type))
        error = a.query("SELECT a FROM %s@t" % fake.address).must_fail(502, "REMOTE_ERROR")
        assert error["message"].startswith(fake.address + "@t: ") and words in error["message"], (body, error)
        fake.close()
    # A connection that breaks is tried again for a read, and not for a write that could then be done twice.
    fake = FakeNode(lambda n, s: n >= 3 and http_answer(200, b'{"status":"ok",' + good + b"}")(n, s))
    answer = a.ok("SELECT a FROM %s@t" % fake.address)
    assert answer["rows"] == [[1], [2]] and answer["remote"][0]["requests"] == 3, answer
    fake.close()
    fake = FakeNode(lambda n, s: False)
    error = a.query("INSERT INTO %s@t VALUES (1)" % fake.address).must_fail(502, "REMOTE_ERROR")
    assert "may have been committed" in error["message"] and len(fake.requests) == 1, error
    error = a.query("SELECT a FROM %s@t" % fake.address).must_fail(502, "REMOTE_ERROR")
    assert "the connection to that node broke" in error["message"] and len(fake.requests) == 5, error
    fake.close()
    fake = FakeNode(lambda n, s: False)
    a.query("INSERT INTO %s@t VALUES (1)" % fake.address, request_id="r").must_fail(502, "REMOTE_ERROR")
    assert len(fake.requests) == 4 and fake.requests[-1][1]["request_id"] == "r"
    fake.close()


@scenario(start=False)
def requests_do_not_go_round_in_circles(ctx):
    a, b = two(ctx)
    fake = FakeNode(http_answer(200, b'{"status":"ok","rows_affected":1,"last_insert_id":0,"lsn":1,"node":"n",'
                                     b'"time_ms":1.0}'))
    for sent, told in ((None, 1), ("1", 2), ("3", 4)):
        headers = {"Grizzly-Hops": sent} if sent else {}
        answer = a.client().request("POST", "/query", json.dumps({"sql": "DELETE FROM %s@t" % fake.address}), headers)
        assert answer.must()["rows_affected"] == 1
        assert "Grizzly-Hops: %d\r\n" % told in fake.requests[-1][0] + "\r\n", fake.requests[-1]
    for sent in ("4", "5", "99999999999999999999"):
        answer = a.client().request("POST", "/query", json.dumps({"sql": "DELETE FROM %s@t" % fake.address}),
                                    {"Grizzly-Hops": sent})
        assert "limit" in answer.must_fail(502, "REMOTE_ERROR")["message"]
    assert len(fake.requests) == 3
    fake.close()
    # Asking itself is no circle: by the endpoint, by its own port, and its other nodes.
    a.ok("CREATE TABLE mine(v); INSERT INTO mine VALUES (5)")
    for name in (at(a, "mine"), address(a, "node1") + "@mine"):
        assert a.ok("SELECT v FROM %s" % name)["rows"] == [[5]]
    assert a.ok("INSERT INTO %s VALUES (6)" % at(a, "mine"))["rows_affected"] == 1


@scenario(start=False, timeout_s=90)
def replicas_ship_by_themselves(ctx):
    a, b = two(ctx, replicas=1)
    replica, master = a.replicas()[0], a.master()
    assert a.ok("SELECT count(*) FROM %s" % at(b), node=replica)["node"] == replica
    assert a.ok("DELETE FROM %s WHERE id = 3" % at(b), node=replica)["rows_affected"] == 1
    # None of its data is here: no master of ours is needed.
    a.status()
    frozen = a.freeze("supervisor")
    os.kill(a.last_pids[master], signal.SIGKILL)
    assert a.ok("SELECT count(*) FROM %s" % at(b), node=replica)["rows"] == [[2]]
    a.thaw(frozen)


@scenario(start=False, timeout_s=120)
def million_rows_at_flat_memory(ctx):
    a, b = two(ctx)
    rows = 1000000 if not ctx.sanitizer else 100000
    b.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(ROWS % (rows, "big"), timeout_ms=100000)
    a.ok("SELECT * FROM %s LIMIT 1000" % at(b, "big"))
    pid = a.pid("node1")
    idle = rss_kb(pid)
    for form in ("rows", "ndjson"):
        peak, received, tail = 0, 0, b""
        with a.open_query("SELECT * FROM %s" % at(b, "big"), format=form, timeout_ms=100000) as s:
            while True:
                piece = s.recv(1 << 20)
                if not piece:
                    break
                received += len(piece)
                tail = (tail + piece)[-4000:]
                peak = max(peak, rss_kb(pid))
        assert received > rows * 40, received
        assert tail.endswith(b"\r\n0\r\n\r\n"), tail[-200:]
        tail = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", tail)
        if form == "rows":
            end = tail[tail.rindex(b'"row_count"'):]
            assert b'"row_count":%d,' % rows in end and b'"status":"ok"}' in end and b'"rows":%d,' % rows in end, end
        else:
            assert b'"id":%d,' % rows in tail
        ctx.note("%s: %d KiB above idle" % (form, peak - idle))
        assert ctx.sanitizer or peak - idle < 20000, "%d KiB above idle" % (peak - idle)
    # A client that reads nothing holds up nobody, and costs no more.
    with a.open_query("SELECT * FROM %s" % at(b, "big"), timeout_ms=100000):
        assert a.ok("SELECT count(*) FROM %s" % at(b, "big"))["rows"] == [[rows]]
        assert ctx.sanitizer or rss_kb(pid) - idle < 20000
    # One that leaves ends the work there.
    wait_until(lambda: in_flight(b) == 0 and in_flight(a) == 0, 10 * ctx.slow, "the other node to be left alone")


def in_flight(c):
    """Requests under way at c beside the one that asks."""
    text = c.client().request("GET", "/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("grizzly_http_requests_in_flight{"))
    return int(line.split()[1]) - 1


def dechunk(raw):
    """The body of a chunked answer, and whether it came whole."""
    pieces, at_byte = [], raw.index(b"\r\n\r\n") + 4
    while True:
        end = raw.find(b"\r\n", at_byte)
        if end < 0:
            return b"".join(pieces), False
        size = int(raw[at_byte:end], 16)
        if size == 0:
            return b"".join(pieces), True
        pieces.append(raw[end + 2:end + 2 + size])
        at_byte = end + 2 + size + 2


@scenario(start=False, timeout_s=90)
def node_that_dies_midway_breaks_the_answer(ctx):
    a, b = two(ctx)
    b.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(ROWS % (300000, "big"), timeout_ms=60000)
    for form in ("rows", "objects", "ndjson"):
        pid = b.pid("node1")
        with a.open_query("SELECT * FROM %s" % at(b, "big"), format=form) as s:
            received = s.recv(1000)
            frozen = b.freeze("supervisor")  # nobody starts it again yet
            os.kill(pid, signal.SIGKILL)
            received += read_to_end(s)
        b.thaw(frozen)
        b.wait_ready()
        body, whole = dechunk(received)
        assert not whole and received.startswith(b"HTTP/1.1 200"), received[:200]
        if form == "ndjson":
            lines = [json.loads(line) for line in body.splitlines()]
            error = lines.pop()
            ids = [line["id"] for line in lines]
        else:
            error = json.loads(body)
            ids = [row["id"] if form == "objects" else row[0] for row in error["rows"]]
            assert "row_count" not in error
        assert error["status"] == "error" and error["code"] == "REMOTE_ERROR", error["code"]
        assert error["message"].startswith(at(b, "big") + ": the connection to that node broke"), error["message"]
        assert ids == list(range(1, len(ids) + 1)) and 0 < len(ids) < 300000, len(ids)
    # The same when it goes wrong there by itself, midway.
    sql = "SELECT id, name, CASE WHEN id < 299999 THEN 1 ELSE abs(-9223372036854775807 - 1) END FROM %s" % at(b, "big")
    with a.open_query(sql) as s:
        body, whole = dechunk(read_to_end(s))
    error = json.loads(body)
    assert not whole and error["status"] == "error" and "overflow" in error["message"], error["message"]
    assert error["message"].startswith(at(b, "big")), error["message"]
    with a.open_query(sql, format="ndjson") as s:
        body, whole = dechunk(read_to_end(s))
    error = json.loads(body.splitlines()[-1])
    assert not whole and error["status"] == "error" and error["message"].startswith(at(b, "big")), error


@scenario(start=False, timeout_s=90)
def clients_that_leave_end_the_work_there(ctx):
    a, b = two(ctx)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n, %s" % at(b)
    with a.open_query(endless, timeout_ms=60000):
        wait_until(lambda: in_flight(b) == 1, 10 * ctx.slow, "the query to reach the other node")
    wait_until(lambda: in_flight(b) == 0, 10 * ctx.slow, "the query to be ended there")
    # A slow other node holds up nobody here: more such queries than there are threads of any kind.
    release = threading.Event()
    fake = FakeNode(lambda n, s: release.wait(60) and http_answer(
        200, b'{"status":"ok","columns":[],"types":[],"rows":[],"row_count":0}')(n, s))
    open_ones = [a.open_query("SELECT * FROM %s@t" % fake.address) for _ in range(8)]
    wait_until(lambda: len(fake.requests) == 8, 10 * ctx.slow, "all to wait there")
    assert a.ok("SELECT count(*) FROM %s" % at(b))["rows"] == [[3]] and a.ok("SELECT 1")["rows"] == [[1]]
    release.set()
    for s in open_ones:
        with s:
            assert b'"status":"ok"' in read_to_end(s)
    fake.close()


@scenario(start=False, timeout_s=60)
def node_stops_in_order_while_clients_stall(ctx):
    a, b = two(ctx)
    b.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(ROWS % (300000, "big"), timeout_ms=60000)
    with a.open_query("SELECT * FROM %s" % at(b, "big")) as s:
        received = s.recv(1000)
        a.stop()
        _, whole = dechunk(received + read_to_end(s))
    assert not whole
    # The same when all had come, and only the client was waited for.
    a.start()
    fake = FakeNode(http_answer(200, b'{"columns":["a"],"rows":[[1]' + b",[2]" * 2000000 + b'],"status":"ok"}'))
    with a.open_query("SELECT a FROM %s@t" % fake.address) as s:
        received = s.recv(1000)
        a.stop()
        _, whole = dechunk(received + read_to_end(s))
    assert not whole
    fake.close()


def keep_asking_through_a_failover(a, b, sql, rows):
    """Clients ask a while b's master is killed: none may get anything but rows."""
    stop, seen, failed = threading.Event(), [], []

    def ask():
        client = Client("127.0.0.1", a.port, a.token, 60 * a.ctx.slow)
        while not stop.is_set():
            answer = client.query(sql, timeout_ms=20000 * a.ctx.slow)
            (seen if answer.http == 200 and answer.rows == rows else failed).append(answer.text)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    wait_until(lambda: len(seen) > 20, 20 * a.ctx.slow, "some answers")
    old = b.master()
    b.kill(old)
    b.wait(lambda: b.status()["master"] not in (None, old), 20, "a new master")
    count = len(seen)
    wait_until(lambda: len(seen) > count + 20, 20 * a.ctx.slow, "some answers more")
    stop.set()
    for t in threads:
        t.join()
    assert not failed, failed[:3]


@scenario(start=False, timeout_s=90)
def failover_there_is_waited_for(ctx):
    b = ctx.cluster(replicas=2).start()
    b.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    b.wait_converged()
    a = ctx.cluster(replicas=0, settings=knows(b)).start()
    keep_asking_through_a_failover(a, b, "SELECT v FROM %s" % at(b, "t"), [[1]])
