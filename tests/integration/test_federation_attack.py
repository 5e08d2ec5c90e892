"""Federation under attack: other nodes that lie, stall, break and go round in circles, and crowds that ask.

A asks, B has tables; a FakeNode stands in for a B that misbehaves. Whatever the other node
does: an answer is whole or says that it is not, in bounded memory and time, and nobody else here is held up.
"""
import json
import os
import threading

from cluster import rss_kb
from client import Client, read_to_end
from fakes import FakeNode
from harness import scenario
from test_federation_ship import ROWS, at, dechunk, http_answer, two

GOOD = b'"columns":["a"],"types":[""],"rows":[[1],[2]],"row_count":2,"lsn":1,"node":"n","time_ms":1.0'


def raw(head, body=b"", close=True):
    """An answer sent as it is, then the end of the connection."""
    def answer(_, s):
        s.sendall(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
        return not close
    return answer


def refused_with(a, fake, words, **more):
    """What a says of fake's answer: REMOTE_ERROR that names it. Any of words (a tuple) must be in it."""
    error = a.query("SELECT a FROM %s@t" % fake.address, **more).must_fail(502, "REMOTE_ERROR")
    assert error["message"].startswith(fake.address + "@t: "), error
    assert any(w in error["message"] for w in words), (words, error)
    fake.close()


@scenario(start=False)
def answers_that_lie_about_themselves(ctx):
    a = ctx.cluster(replicas=0).start()
    ok = b"HTTP/1.1 200 OK\nContent-Type: application/json\n"
    for body, words in (
            (b'{"status":"ok"}', ("rows",)),
            (b'{"status":"ok","lsn":1,"node":"n","time_ms":1}', ("rows",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"lsn":1,"node":"n","time_ms":1}', ("rows",)),
            (b'{"status":"ok","rows":[[1]],"row_count":1}', ("columns",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1]]}', ("row_count",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1],[2]],"row_count":3}', ("row_count",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1],[2]],"row_count":1}', ("row_count",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1,2]],"row_count":1}', ("values",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1],[]],"row_count":2}', ("values",)),
            (b'{"status":"ok","columns":["a","b"],"types":["",""],"rows":[[1]],"row_count":1}', ("values",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[1],"row_count":1}', ("row",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1]],"rows":[],"row_count":0}', ("twice",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":{},"row_count":0}', ("rows",)),
            (b'{"status":"ok","status":"error",' + GOOD + b"}", ("twice",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[["\\x"]],"row_count":1}', ("text",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[["\\u12g4"]],"row_count":1}', ("text",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[["\xff\xfe"]],"row_count":1}', ("UTF-8",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[["\xed\xa0\x80"]],"row_count":1}', ("UTF-8",)),
            (b'{"status":"ok","columns":["a"],"types":[""],"rows":[["\xe2\x82"]],"row_count":1}', ("UTF-8",)),
            (b'{"status":"ok","results":[{"columns":["a"],"rows":[[1]],"row_count":2}]}', ("row_count",)),
            (b'{"status":"ok","results":[{}]}', ("rows",)),
            (b'{"status":"ok","rows_affected":1,"last_insert_id":1,"lsn":1}', ("rows",)),
            (b"[" * 100000, ("does not begin",)),
            (b'{"status":"ok","columns":[],"rows":' + b"[" * 100000, ("nested",)),
            (b'{"status":"ok","columns":[1],"rows":[[' + b"1" * 100000 + b"]]}", ("number",)),
            (b'{"' + b"k" * 100000 + b'":1}', ("key",)),
            (b'{"status":"error","code":"SQL_ERROR","message":"' + b"m" * 1000000 + b'"}', ("too long",)),
            (b"\xff" * 1000, ("does not begin",)),
            (b"\x00" * 1000, ("does not begin",))):
        fake = FakeNode(raw(ok + b"Content-Length: %d" % len(body), body))
        refused_with(a, fake, words)


@scenario(start=False)
def answers_that_are_broken_http(ctx):
    a = ctx.cluster(replicas=0).start()
    good = b'{"status":"ok",' + GOOD + b"}"
    ok = b"HTTP/1.1 200 OK\nContent-Type: application/json\n"
    refused, either = True, False  # either: it may be read as it was meant; then nothing is missing
    for head, body, must in (
            (ok + b"Content-Length: %d" % (len(good) + 1), good, refused),
            (ok + b"Content-Length: %d" % (len(good) - 1), good, refused),
            (ok + b"Content-Length: -1", good, either),
            (ok + b"Content-Length: 99999999999999999999999", good, either),
            (ok + b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(good), good), refused),
            (ok + b"Transfer-Encoding: chunked", b"zz\r\n%s\r\n0\r\n\r\n" % good, refused),
            (ok + b"Transfer-Encoding: chunked", b"ffffffffffffffffffff\r\n%s\r\n0\r\n\r\n" % good, refused),
            (ok + b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(good) - 20, good), refused),
            (ok + b"Content-Encoding: gzip\nContent-Length: %d" % len(good), b"\x1f\x8b" + good[2:], refused),
            (b"HTTP/1.1 204 None\nContent-Type: application/json", b"", refused),
            (b"HTTP/1.1 304 Same\nContent-Type: application/json", b"", refused),
            (b"HTTP/1.1 301 There\nContent-Type: application/json\nLocation: http://127.0.0.1:1/\nContent-Length: 0",
             b"", refused),
            (b"HTTP/9.9 200 OK\nContent-Type: application/json\nContent-Length: %d" % len(good), good, either),
            (b"garbage", good, refused),
            (b"SSH-2.0-OpenSSH_9.2", b"", refused),
            (b"\x16\x03\x01\x02\x00\x01\x00", b"\xff" * 500, refused),
            (ok + b"X: %s\nContent-Length: %d" % (b"h" * 5000000, len(good)), good, either),
            (ok + b"\n".join(b"X-%d: y" % i for i in range(200000)) + b"\nContent-Length: %d" % len(good), good,
             either)):
        fake = FakeNode(raw(head, body))
        error = a.query("SELECT a FROM %s@t" % fake.address, timeout_ms=8000 * ctx.slow)
        if error.http == 200:
            assert error.rows == [[1], [2]] and must is either, (head[:100], error.text)
        else:
            message = error.must_fail(502, "REMOTE_ERROR")["message"]
            assert message.startswith(fake.address + "@t: "), (head[:100], message)
        fake.close()
    assert a.ok("SELECT 1")["rows"] == [[1]]


@scenario(start=False)
def redirects_take_no_token_elsewhere(ctx):
    thief = FakeNode(http_answer(200, b'{"status":"ok",' + GOOD + b"}"))
    fake = FakeNode(raw(b"HTTP/1.1 307 There\nContent-Type: application/json\nContent-Length: 0\n"
                        b"Location: http://%s/query" % thief.address.encode()))
    token_file = os.path.join(ctx.directory, "secret")
    with open(token_file, "w") as f:
        f.write("a-token-of-the-fake-node\n")
    a = ctx.cluster(replicas=0, settings={"remote": {"nodes": {fake.address: {"token_file": token_file}}}}).start()
    refused_with(a, fake, ("no Grizzly node",))
    assert "Bearer a-token-of-the-fake-node" in fake.requests[0][0] and not thief.requests
    thief.close()


@scenario(start=False, timeout_s=90, quick=False)
def endless_answers_are_bounded(ctx):
    """A value without end, blanks without end, a field without end: there is a limit to each."""
    a = ctx.cluster(replicas=0).start()
    pid = a.pid("node1")
    a.ok("SELECT 1")
    idle = rss_kb(pid)
    begin = b'{"status":"ok","columns":["a"],"types":[""],"rows":['
    for first, more, count in ((begin + b'["', b"x" * 65536, 8000), (begin + b"[[1]", b" " * 65536, 1000),
                               (b'{"lsn":"', b"7" * 65536, 1000)):
        peaks, fake = [], FakeNode(None)

        def endless(_, s, first=first, more=more, count=count):
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + first)
            for _ in range(count):
                s.sendall(more)
            return False
        fake.answer = endless
        done = threading.Event()

        def watch():
            while not done.wait(0.02):
                peaks.append(rss_kb(pid))
        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = a.query("SELECT a FROM %s@t" % fake.address, timeout_ms=20000)
        done.set()
        watcher.join()
        answer.must_fail(502, "REMOTE_ERROR")
        peak = max(peaks or [idle]) - idle
        ctx.note("%d KiB above idle" % peak)
        assert ctx.sanitizer or peak < 300000, peak
        fake.close()
    assert a.ok("SELECT 1")["rows"] == [[1]]


@scenario(start=False)
def answers_that_stall(ctx):
    a = ctx.cluster(replicas=0).start()
    good = b'{"status":"ok",' + GOOD + b"}"
    release = threading.Event()

    def stalls(pieces):
        def answer(_, s):
            for piece in pieces:
                s.sendall(piece)
            release.wait(60)
            return False
        return answer
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(good)
    for pieces in ([], [b"HTTP/1.1 2"], [head], [head, good[:30]], [head, good[:-1]]):
        fake = FakeNode(stalls(pieces))
        refused_with(a, fake, ("did not answer in time",), timeout_ms=300 * ctx.slow)
    # Byte by byte, it comes to an end: that is an answer.
    def drips(_, s):
        for i in range(len(head + good)):
            s.sendall((head + good)[i:i + 1])
        return True
    fake = FakeNode(drips)
    assert a.ok("SELECT a FROM %s@t" % fake.address)["rows"] == [[1], [2]]
    fake.close()
    # Long enough that rows are on their way to the client already: the stream breaks.
    rows = b",".join(b"[%d]" % i for i in range(100000))
    fake = FakeNode(stalls([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"
                            b'{"status":"ok","columns":["a"],"types":[""],"rows":[' + rows]))
    with a.open_query("SELECT a FROM %s@t" % fake.address, timeout_ms=1500 * ctx.slow) as s:
        body, whole = dechunk(read_to_end(s))
    error = json.loads(body)
    assert not whole and error["status"] == "error" and error["code"] == "REMOTE_ERROR", error["code"]
    assert error["message"].startswith(fake.address + "@t: that node did not answer in time"), error["message"]
    assert [r[0] for r in error["rows"]] == list(range(len(error["rows"]))) and error["rows"]
    release.set()
    fake.close()


@scenario(start=False, timeout_s=90)
def crowds_ask_at_once(ctx):
    """Fifty clients at once: all are answered, and nobody is asked over more connections than are allowed."""
    a, b = two(ctx)
    b.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(ROWS % (2000, "big"))
    expected = b.ok("SELECT id, name FROM big ORDER BY id")["rows"]
    failures, threads = [], []

    def ask():
        client = Client("127.0.0.1", a.port, a.token, 60 * ctx.slow)
        for _ in range(4):
            answer = client.query("SELECT id, name FROM %s ORDER BY id" % at(b, "big"), timeout_ms=30000 * ctx.slow)
            if answer.http != 200 or answer.rows != expected:
                failures.append(answer.text[:300])
    for _ in range(50):
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    for t in threads:
        t.join()
    assert not failures, failures[:3]


@scenario(start=False, timeout_s=90)
def schema_changes_there_are_seen_at_once(ctx):
    a, b = two(ctx)
    for change, columns in (("ALTER TABLE orders ADD COLUMN extra DEFAULT 7", ["id", "name", "amount", "x", "extra"]),
                            ("ALTER TABLE orders RENAME COLUMN name TO title", ["id", "title", "amount", "x", "extra"]),
                            ("ALTER TABLE orders DROP COLUMN x", ["id", "title", "amount", "extra"]),
                            ("DROP TABLE orders; CREATE TABLE orders(one)", ["one"]),
                            ("DROP TABLE orders; CREATE VIEW orders AS SELECT 5 AS five", ["five"])):
        before = a.ok("SELECT * FROM %s" % at(b))["columns"]
        assert before == b.ok("SELECT * FROM orders")["columns"] and before != columns
        b.ok(change)
        assert a.ok("SELECT * FROM %s" % at(b))["columns"] == columns
    b.ok("DROP VIEW orders")
    message = a.query("SELECT * FROM %s" % at(b)).must_fail(502, "REMOTE_ERROR")["message"]
    assert message == at(b) + ": that node has no such table", message
    # In the middle of a stream: what was begun is one state, to its end.
    b.ok("CREATE TABLE orders(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    b.ok(ROWS % (200000, "orders"), timeout_ms=60000)
    with a.open_query("SELECT id FROM %s" % at(b), timeout_ms=60000) as s:
        received = s.recv(1000)
        b.ok("DELETE FROM orders WHERE id > 100000; ALTER TABLE orders RENAME COLUMN id TO number")
        body, whole = dechunk(received + read_to_end(s))
    assert whole and [r[0] for r in json.loads(body)["rows"]] == list(range(1, 200001))
    assert a.ok("SELECT count(number) FROM %s" % at(b))["rows"] == [[100000]]


@scenario(start=False)
def circles_end_at_the_hop_limit(ctx):
    """A relay that asks back what it was asked: the circle of two nodes that nothing here can see as one."""
    a = ctx.cluster(replicas=0).start()
    client = a.client

    def ask_back(_, s):
        head = fake.requests[-1][0]
        hops = next(line.split(":")[1].strip() for line in head.split("\r\n")
                    if line.lower().startswith("grizzly-hops"))
        answer = client().request("POST", "/query", json.dumps({"sql": "SELECT a FROM %s@t" % fake.address}),
                                  {"Grizzly-Hops": hops})
        return http_answer(answer.http, answer.body)(0, s)
    fake = FakeNode(ask_back)
    answers, threads = [], []
    for _ in range(24):  # more at once than there are threads of any kind
        threads.append(threading.Thread(target=lambda: answers.append(a.query("SELECT a FROM %s@t" % fake.address))))
        threads[-1].start()
    for t in threads:
        t.join()
    for answer in answers:
        message = answer.must_fail(502, "REMOTE_ERROR")["message"]
        assert "the request has been passed on 4 times already" in message, message
    assert len(answers) == 24 and len(fake.requests) == 24 * 4, len(fake.requests)
    fake.close()
