"""The HTTP front: routes, methods, limits, and clients that are slow, rude or many."""
import json
import socket
import threading
import time

from client import raw_exchange, status_of
from harness import scenario

SHARED = {"replicas": 1, "settings": {"http": {"body_bytes_max": 1 << 20, "request_timeout_ms": 1500,
                                               "idle_timeout_ms": 2500}}}


def head(c, method, path, *lines):
    return ("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n" % (
        method, path, c.token, "".join(line + "\r\n" for line in lines))).encode()


def query_bytes(c, sql, *lines):
    body = json.dumps({"sql": sql}).encode()
    return head(c, "POST", "/query", "Content-Length: %d" % len(body), *lines) + body


@scenario(shared=True, cases={"root": ("/",), "other": ("/nowhere",), "below": ("/query/x",), "case": ("/Query",),
                              "dots": ("/../etc/passwd",), "long": ("/" + "a" * 3000,)})
def unknown_paths_answer_404(c, path):
    c.client().request("GET", path).must_fail(404, "NOT_FOUND")


@scenario(shared=True, cases={
    "get_query": ("GET", "/query"), "put_query": ("PUT", "/query"), "delete_query": ("DELETE", "/query"),
    "post_health": ("POST", "/health"), "post_ready": ("POST", "/ready"), "post_status": ("POST", "/status"),
    "post_metrics": ("POST", "/metrics"), "patch_query": ("PATCH", "/query"), "options_query": ("OPTIONS", "/query")})
def wrong_methods_answer_405(c, method, path):
    c.client().request(method, path).must_fail(405, "METHOD_NOT_ALLOWED")


@scenario(shared=True)
def strange_methods_are_refused_and_harm_nobody(c):
    for method in ("BREW", "get", "CONNECT", "TRACE"):
        code = status_of(raw_exchange("127.0.0.1", c.port, [head(c, method, "/query", "Connection: close")], 3))
        assert code in (400, 404, 405, 501, None), (method, code)
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def health_and_ready_are_open(c):
    for node in (None, "node1", "node2"):
        for path in ("/health", "/ready"):
            answer = c.client(node).request("GET", path, token=None)
            assert answer.http == 200, (node, path, answer.text)


@scenario(shared=True)
def status_and_metrics_need_a_token(c):
    for path in ("/status", "/metrics"):
        c.client().request("GET", path, token=None).must_fail(401, "UNAUTHORIZED")
        c.client().request("GET", path, token="wrong").must_fail(401, "UNAUTHORIZED")
        assert c.client().request("GET", path).http == 200


@scenario(shared=True)
def status_tells_place_and_role(c):
    master = c.master()
    for node in ("node1", "node2"):
        s = c.node_status(node)
        for key in ("id", "role", "term", "durable_lsn", "applied_lsn", "committed_lsn", "lag_ms", "db_checksum"):
            assert key in s, (key, s)
        assert s["id"] == node and s["role"] == ("master" if node == master else "replica"), s
        assert s["term"] >= 1, s
    assert c.client().request("GET", "/status").json["id"] == master


@scenario(shared=True)
def metrics_are_prometheus_text(c):
    def value(text, name):
        found = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                 if line.split("{")[0].split(" ")[0] == name]
        assert found, "%s is missing in:\n%s" % (name, text[:2000])
        return sum(found)
    first = c.client().request("GET", "/metrics")
    assert first.headers["Content-Type"].startswith("text/plain"), first.headers["Content-Type"]
    for line in first.text.splitlines():
        assert line.startswith("#") or (line.startswith("grizzly_") and len(line.rsplit(" ", 1)) == 2), line
    before = value(first.text, "grizzly_http_requests_total")
    for _ in range(5):
        c.ok("SELECT 1")
    after = value(c.client().request("GET", "/metrics").text, "grizzly_http_requests_total")
    assert after >= before + 5, (before, after)


@scenario(shared=True)
def metric_names_have_type_and_help_once(c):
    text = c.client().request("GET", "/metrics").text
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert types and len(types) == len(set(types)), types


@scenario(shared=True)
def body_over_the_limit_answers_413(c):
    body = json.dumps({"sql": "SELECT ?", "params": ["x" * (2 << 20)]}).encode()
    received = raw_exchange("127.0.0.1", c.port, [
        head(c, "POST", "/query", "Content-Length: %d" % len(body)), body], 5)
    assert status_of(received) == 413 and b"TOO_LARGE" in received, received[:300]
    fits = c.query("SELECT length(?)", ["x" * 900000])
    assert fits.value == 900000


@scenario(shared=True)
def announced_body_over_the_limit_is_refused_before_it_is_sent(c):
    received = raw_exchange("127.0.0.1", c.port, [head(c, "POST", "/query", "Content-Length: 99999999999")], 5)
    assert status_of(received) in (413, 400), received[:300]


@scenario(shared=True)
def chunked_body_over_the_limit_answers_413(c):
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    received = raw_exchange("127.0.0.1", c.port, [head(c, "POST", "/query", "Transfer-Encoding: chunked")] +
                            [chunk] * 8 + [b"0\r\n\r\n"], 5)
    assert status_of(received) in (413, None), received[:300]
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def chunked_request_bodies_work(c):
    body = json.dumps({"sql": "SELECT 41 + 1"}).encode()
    pieces = [b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:5], body[5:])] + [b"0\r\n\r\n"]
    received = raw_exchange("127.0.0.1", c.port, [
        head(c, "POST", "/query", "Transfer-Encoding: chunked", "Connection: close")] + pieces, 5)
    assert status_of(received) == 200 and b"42" in received, received[:300]


@scenario(shared=True)
def headers_over_the_limit_are_refused(c):
    received = raw_exchange("127.0.0.1", c.port, [head(c, "GET", "/health", "X-Long: " + "y" * 200000)], 5)
    assert status_of(received) == 431 and b"TOO_LARGE" in received, received[:200]
    assert c.query("SELECT 1").value == 1


@scenario(shared=True, cases={
    "negative_length": ("POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",),
    "garbage_length": ("POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",),
    "no_http": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",), "bad_version": ("GET / HTTP/9.9\r\n\r\n",),
    "no_length": ("POST /query HTTP/1.1\r\nHost: x\r\n\r\n",), "nul": ("GET /\0 HTTP/1.1\r\n\r\n",),
    "two_lengths": ("POST /query HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nabcde",)})
def malformed_http_is_refused_and_harms_nobody(c, text):
    received = raw_exchange("127.0.0.1", c.port, [text.encode("latin-1")], 4)
    assert status_of(received) not in (200, 500), received[:200]
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def slow_sender_is_cut_off_and_blocks_nobody(c):
    body = json.dumps({"sql": "SELECT 1"}).encode()
    whole = head(c, "POST", "/query", "Content-Length: %d" % len(body)) + body
    sockets = [socket.create_connection(("127.0.0.1", c.port), timeout=15) for _ in range(20)]
    started = time.monotonic()
    closed, sent = 0, 0
    try:
        while closed < len(sockets) and time.monotonic() - started < 12 * c.ctx.slow:
            for s in sockets:
                if s.fileno() < 0:
                    continue
                try:
                    s.sendall(whole[sent:sent + 1])
                    s.settimeout(0.001)
                    if s.recv(4096) == b"" or True:
                        s.close()
                        closed += 1
                except socket.timeout:
                    s.settimeout(15)
                except OSError:
                    s.close()
                    closed += 1
            sent = min(sent + 1, len(whole) - 2)
            assert c.query("SELECT 1").value == 1
            time.sleep(0.05)
    finally:
        for s in sockets:
            s.close()
    took = time.monotonic() - started
    assert closed == 20 and took > 1.0, "%d of 20 cut off after %.1f s" % (closed, took)
    c.ctx.notes.append("cut off after %.1f s" % took)


@scenario(shared=True)
def idle_connections_are_closed_in_time(c):
    with socket.create_connection(("127.0.0.1", c.port), timeout=15) as s:
        s.sendall(query_bytes(c, "SELECT 1"))
        assert b"200" in s.recv(4096)
        started = time.monotonic()
        while s.recv(4096):
            pass
        took = time.monotonic() - started
    assert 1.0 < took < 10, took


@scenario(shared=True)
def connection_is_kept_alive_over_many_requests(c):
    client = c.client(keep_alive=True)
    client.query("SELECT 1").must()
    connection = client.connection
    for i in range(50):
        assert client.query("SELECT ?", [i]).value == i
    client.query("SELEC").must_fail(400, "SQL_ERROR")
    client.request("GET", "/nowhere").must_fail(404, "NOT_FOUND")
    assert client.query("SELECT 1").value == 1
    assert client.connection is connection, "the connection was closed in between"
    client.close()


@scenario(shared=True)
def pipelined_requests_are_answered_in_order(c):
    pieces = b"".join(query_bytes(c, "SELECT %d AS pipelined" % i) for i in range(9))
    received = raw_exchange("127.0.0.1", c.port, [
        pieces + query_bytes(c, "SELECT 9 AS pipelined", "Connection: close")], 5)
    places = [received.find(b'[[%d]]' % i) for i in range(10)]
    assert -1 not in places and places == sorted(places), (places, received[:500])


@scenario(shared=True)
def clients_that_leave_midway_harm_nobody(c):
    long_read = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300000) SELECT i FROM n"
    for i in range(30):
        s = socket.create_connection(("127.0.0.1", c.port), timeout=5)
        data = query_bytes(c, long_read)
        s.sendall(data if i % 2 else data[:-3])
        if i % 6 == 3:  # whole ones: who waits for an answer to half a request waits for the time-out
            s.recv(100)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        s.close()
    assert c.query("SELECT 1").value == 1


@scenario(shared=True)
def many_connections_at_once_are_all_answered(c):
    results, errors = [], []

    def run(i):
        try:
            client = c.client(keep_alive=True)
            results.extend(client.query("SELECT ?", [i * 100 + n]).value == i * 100 + n for n in range(10))
            client.close()
        except Exception as e:  # collected for the assertion below
            errors.append(repr(e))
    threads = [threading.Thread(target=run, args=(i,)) for i in range(100)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors and len(results) == 1000 and all(results), (errors[:3], len(results))


@scenario(start=False, timeout_s=60)
def connections_over_the_cap_wait_and_are_served(ctx):
    c = ctx.cluster(replicas=0, settings={"http": {"connections_max": 8, "idle_timeout_ms": 1000}})
    c.start()
    results, errors = [], []

    def run(i):
        try:
            results.append(c.query("SELECT ?", [i]).value)
        except Exception as e:  # collected for the assertion below
            errors.append(repr(e))
    threads = [threading.Thread(target=run, args=(i,)) for i in range(60)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors and sorted(results) == list(range(60)), (errors[:3], len(results))


@scenario(start=False, timeout_s=60)
def overloaded_writes_and_too_large_results_are_told_so(ctx):
    c = ctx.cluster(replicas=1, settings={
        "commit_timeout_ms": 3000, "commit_pipeline_depth": 0,
        "query": {"write_queue_max": 2, "result_rows_max": 1000, "result_bytes_max": 100000}})
    c.start()
    c.query("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    rows = "WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM s WHERE x < %d) SELECT x FROM s"
    assert len(c.query(rows % 1000).rows) == 1000
    c.query(rows % 1001).must_fail(413, "TOO_LARGE")
    c.query("SELECT hex(zeroblob(60000))").must_fail(413, "TOO_LARGE")
    answers = []

    def write(i):
        answers.append(c.client().query("INSERT INTO t VALUES (?)", [i]))
    replica = next(n["id"] for n in c.status()["nodes"] if n["id"] != c.status()["master"])
    pid = c.freeze(replica)
    threads = [threading.Thread(target=write, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    c.thaw(pid)
    refused = [a for a in answers if a.http == 429]
    assert len(answers) == 12 and refused, [a.text for a in answers]
    for a in refused:
        assert a.code == "OVERLOADED" and a.headers["Retry-After"] == "1", (a.text, dict(a.headers))
    assert all(a.http in (200, 429, 503) for a in answers), [a.text for a in answers]
