"""Joins over nodes under attack: the other node is killed, cut off, stalled, changed and asked by crowds on the way.

A joins its own tables with B's. Between them stands a Relay where a connection must break at a certain byte. An
answer is whole and right or says that it is not; nothing waits for ever; nothing goes on when nobody wants it any more.
"""
import json
import os
import signal
import socket
import threading

from cluster import rss_kb, wait_until
from client import Client, read_to_end
from fakes import Listener
from harness import scenario
from test_federation_ship import ROWS, address, at, dechunk, in_flight, keep_asking_through_a_failover, knows

BIG = "CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)"
JOIN = "SELECT b.id, l.word FROM %s b JOIN little l ON l.grp = b.grp"


def joined(ctx, rows, **more):
    """(a, b): b has big, a has little, a row for each grp of big."""
    b = ctx.cluster(replicas=0, settings=more.pop("b_settings", None)).start()
    a = ctx.cluster(replicas=more.pop("replicas", 0), settings=knows(b, **more)).start()
    b.ok(BIG)
    b.ok(ROWS % (rows, "big"), timeout_ms=100000)
    fill_little(a)
    return a, b


def fill_little(a):
    a.ok("CREATE TABLE little(grp INTEGER PRIMARY KEY, word TEXT); WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL "
         "SELECT i + 1 FROM n WHERE i < 99) INSERT INTO little SELECT i, 'word ' || i FROM n")


class Relay(Listener):
    """A TCP connection passed on to far_port, whose answers break at a byte: limit None passes all on. then: "close", or
    "stall" until close(). Counts connections."""

    def __init__(self, port):
        self.far_port, self.limit, self.then = port, None, "close"
        self.open, self.peak, self.total = 0, 0, 0
        self.lock, self.closed = threading.Lock(), threading.Event()
        super().__init__()

    def serve(self, near):
        with self.lock:
            self.open, self.total = self.open + 1, self.total + 1
            self.peak = max(self.peak, self.open)
        try:
            with near, socket.create_connection(("127.0.0.1", self.far_port)) as far:
                threading.Thread(target=self.pump_requests, args=(near, far), daemon=True).start()
                self.pump_answers(far, near)
        except OSError:
            pass  # one of the two has gone
        with self.lock:
            self.open -= 1

    @staticmethod
    def pump_requests(near, far):
        try:
            while True:
                piece = near.recv(65536)
                if not piece:
                    break
                far.sendall(piece)
        except OSError:
            pass
        try:
            far.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def pump_answers(self, far, near):
        passed = 0
        while True:
            piece = far.recv(65536)
            if not piece:
                return
            left = len(piece) if self.limit is None else max(0, self.limit - passed)
            near.sendall(piece[:left])
            passed += left
            if left < len(piece):
                if self.then == "stall":
                    self.closed.wait(60)
                return

    def close(self):
        self.closed.set()
        super().close()


def through_relay(ctx, rows):
    """(a, b, relay): a asks b through the relay, with b's token."""
    b = ctx.cluster(replicas=0).start()
    relay = Relay(b.port)
    token_file = os.path.join(b.data_dir, "token")
    a = ctx.cluster(replicas=0, settings={"remote": {"nodes": {relay.address: {"token_file": token_file}}}}).start()
    b.ok(BIG)
    b.ok(ROWS % (rows, "big"), timeout_ms=100000)
    fill_little(a)
    return a, b, relay


def remote_error(answer, name):
    message = answer.must_fail(502, "REMOTE_ERROR")["message"]
    assert name in message, message
    return message


@scenario(start=False, timeout_s=120)
def node_that_dies_in_a_join_breaks_the_answer(ctx):
    a, b = joined(ctx, 300000)
    for form in ("rows", "ndjson"):
        pid = b.pid("node1")
        with a.open_query(JOIN % at(b, "big"), format=form, timeout_ms=30000 * ctx.slow) as s:
            received = s.recv(1000)
            frozen = b.freeze("supervisor")  # nobody starts it again yet
            os.kill(pid, signal.SIGKILL)
            received += read_to_end(s)
        b.thaw(frozen)
        b.wait_ready()
        if received.startswith(b"HTTP/1.1 502"):
            assert b"REMOTE_ERROR" in received and at(b, "big").encode() in received
            continue
        body, whole = dechunk(received)
        if form == "ndjson":
            lines = [json.loads(line) for line in body.splitlines()]
            rows, error = [[line["id"]] for line in lines[:-1]], lines[-1]
        else:
            error = json.loads(body)
            rows = error["rows"]
        if whole and len(rows) + (form == "ndjson") == 300000:
            continue  # it was faster
        assert not whole and error["status"] == "error" and error["code"] == "REMOTE_ERROR", (len(rows), error)
        assert error["message"].startswith(at(b, "big")), error["message"]
        assert len({row[0] for row in rows}) == len(rows) < 300000


@scenario(start=False, timeout_s=120)
def answers_cut_anywhere_are_errors(ctx):
    a, b, relay = through_relay(ctx, 3000)
    name = relay.address + "@big"
    right = sorted(a.ok(JOIN % name)["rows"])
    assert len(right) == 3000
    others = ("SELECT l.word, (SELECT count(*) FROM %s b WHERE b.grp = l.grp) AS n FROM little l" % name,
              "SELECT count(*) AS n FROM little l WHERE l.grp IN (SELECT grp FROM %s)" % name)
    cuts = (0, 30, 300, 700, 2000, 7000, 20000, 50000)
    for i, cut in enumerate(cuts[::3] if ctx.sanitizer else cuts):  # each waits; fuzz_rows cuts everywhere, sanitized
        relay.limit = cut
        for sql in (JOIN % name, others[i % 2]):
            answer = a.query(sql, timeout_ms=400 * ctx.slow)
            if answer.http == 200:  # the connection had room for it
                rows = answer.rows
                assert sorted(rows) == right or rows == [[100]] or (
                    len(rows) == 100 and all(r[1] == 30 for r in rows)), (cut, sql, answer.text[:300])
            else:
                remote_error(answer, name)
    relay.then = "stall"
    for cut in (0, 300, 5000):
        relay.limit = cut
        message = remote_error(a.query(JOIN % name, timeout_ms=700 * ctx.slow), name)
        assert "in time" in message, message
    relay.limit = None
    assert sorted(a.ok(JOIN % name, timeout_ms=20000 * ctx.slow)["rows"]) == right
    relay.close()


@scenario(start=False, timeout_s=120)
def schema_changes_there_never_give_a_wrong_row(ctx):
    a, b = joined(ctx, 10)
    sql = "SELECT l.grp, t.one, t.two FROM little l JOIN %s t ON t.id = l.grp" % at(b, "t")
    orders = ("id INTEGER PRIMARY KEY, one, two", "id INTEGER PRIMARY KEY, two, one",
              "two, id INTEGER PRIMARY KEY, x, one",
              "one TEXT, id INTEGER PRIMARY KEY, two INTEGER")

    def change(i):
        b.ok("DROP TABLE IF EXISTS t; CREATE TABLE t(%s); INSERT INTO t(id, one, two) SELECT grp, 'one', -2 FROM big"
             % orders[i % len(orders)])
    for i in range(2 * len(orders)):
        change(i)
        rows = a.ok(sql)["rows"]
        assert len(rows) == 10 and all(r[1:] == ["one", -2] for r in rows), rows
    # Collations and types of the columns are the new ones, too.
    for declared, found in (("TEXT", 1), ("TEXT COLLATE NOCASE", 2), ("BLOB", 1), ("TEXT COLLATE RTRIM", 1)):
        b.ok("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, w %s); "
             "INSERT INTO t(w) VALUES ('Word 1'), ('word 1')" % declared)
        n = a.ok("SELECT count(*) AS n FROM %s t JOIN little l ON t.w = l.word" % at(b, "t"))["rows"]
        assert n == [[found]], (declared, n)
    # And while it changes all the time.
    stop, bad, good = threading.Event(), [], []

    def ask():
        client = Client("127.0.0.1", a.port, a.token, 60 * ctx.slow, keep_alive=True)
        while not stop.is_set():
            answer = client.query(sql, timeout_ms=20000 * ctx.slow)
            if answer.http == 200 and len(answer.rows) == 10 and all(r[1:] == ["one", -2] for r in answer.rows):
                good.append(1)
            elif answer.code not in ("REMOTE_ERROR", "SQL_ERROR"):
                bad.append(answer.text[:500])
    change(0)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(60):
        change(i)
    wait_until(lambda: len(good) > 20 or bad, 20 * ctx.slow, "answers while the schema changes")
    stop.set()
    for t in threads:
        t.join()
    assert not bad, bad[:3]
    b.ok("DROP TABLE t")
    assert "no such table" in remote_error(a.query(sql), at(b, "t"))


@scenario(start=False, timeout_s=120)
def joins_of_two_nodes_that_need_each_other(ctx):
    """All threads of both sides hold joins that need a heavy scan of the other side: they get it."""
    a = ctx.cluster(replicas=0)
    b = ctx.cluster(replicas=0)
    for c, other in ((a, b), (b, a)):
        c.config["remote"] = knows(other)["remote"]
        c.config.setdefault("query", {}).update({"slow_threads": 2})
        c.write_config()
        c.start()
    for c in (a, b):
        c.ok(BIG)
        c.ok(ROWS % (30000, "big"), timeout_ms=60000)
        fill_little(c)
    sql = "SELECT count(*) AS n, sum(l.grp) AS s FROM little l JOIN %s b ON b.grp = l.grp AND b.name LIKE '%%5%%'"
    expected = b.ok("SELECT count(*) AS n, sum(grp) AS s FROM big WHERE name LIKE '%5%'")["rows"]
    answers, threads = [], []

    def ask(c, other):
        answers.append(c.query(sql % at(other, "big"), timeout_ms=30000 * ctx.slow))
    for i in range(24):
        threads.append(threading.Thread(target=ask, args=(a, b) if i % 2 else (b, a)))
        threads[-1].start()
    for t in threads:
        t.join()
    assert len(answers) == 24
    for answer in answers:
        assert answer.rows == expected, answer.text[:300]


@scenario(start=False, timeout_s=120)
def crowds_join_at_once(ctx):
    """Fifty at once, two tables of the same node in each: over ten connections, and none waits for another for ever."""
    a, b, relay = through_relay(ctx, 20000)
    b.ok("CREATE TABLE second AS SELECT id, name, grp FROM big")
    sql = ("SELECT count(*) AS n, sum(x.id) AS s FROM %s@big x JOIN %s@second y ON y.id = x.id + 1 JOIN little l "
           "ON l.grp = x.grp" % (relay.address, relay.address))
    expected = [[19999, 19999 * 20000 // 2]]
    assert a.ok(sql, timeout_ms=30000 * ctx.slow)["rows"] == expected
    failures, threads = [], []

    def ask():
        answer = a.client(timeout_s=90).query(sql, timeout_ms=80000)
        if answer.http != 200 or answer.rows != expected:
            failures.append(answer.text[:300])
    for _ in range(50 if not ctx.sanitizer else 20):
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    for t in threads:
        t.join()
    ctx.note("%d connections at most" % relay.peak)
    assert not failures, (len(failures), failures[:3])
    assert relay.peak <= 10, relay.peak
    relay.close()


@scenario(start=False, timeout_s=120, quick=False)
def million_rows_are_joined_at_flat_memory(ctx):
    a, b = joined(ctx, 1000000)
    pid = a.pid("node1")
    a.ok(JOIN % at(b, "big") + " LIMIT 10")
    idle, peak, received, tail = rss_kb(pid), 0, 0, b""
    with a.open_query(JOIN % at(b, "big"), timeout_ms=100000) as s:
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            received += len(piece)
            tail = (tail + piece)[-2000:]
            peak = max(peak, rss_kb(pid))
    end = tail[tail.rindex(b'"row_count"'):]
    assert b'"row_count":1000000,' in end and b'"status":"ok"}' in end, end
    ctx.note("%d KiB above idle" % (peak - idle))
    assert peak - idle < 60000, "%d KiB above idle" % (peak - idle)


@scenario(start=False, timeout_s=120)
def replicas_join_by_themselves(ctx):
    a, b = joined(ctx, 1000, replicas=1)
    a.wait_converged()
    replica = a.replicas()[0]
    for consistency in ("stale", "session", "linearizable"):
        answer = a.ok("SELECT count(*) AS n FROM %s b JOIN little l ON l.grp = b.grp" % at(b, "big"), node=replica,
                      consistency=consistency)
        assert answer["rows"] == [[1000]] and answer["remote"][0]["node"] == address(b), answer
        assert consistency == "linearizable" or answer["node"] == replica, answer


@scenario(start=False, timeout_s=120)
def a_node_joins_with_itself(ctx):
    a, _ = joined(ctx, 10)
    a.ok(BIG)
    a.ok(ROWS % (20000, "big"), timeout_ms=60000)
    for name in (at(a, "big"), address(a, "node1") + "@big"):
        assert a.ok("SELECT count(*) AS n FROM %s r JOIN big l ON l.id = r.id + 1 AND l.name <> r.name" % name,
                    timeout_ms=30000 * ctx.slow)["rows"] == [[19999]]
    answers, threads = [], []
    for _ in range(12):
        threads.append(threading.Thread(target=lambda: answers.append(a.query(
            "SELECT count(*) AS n FROM %s r JOIN big l ON l.id = r.id" % at(a, "big"), timeout_ms=60000 * ctx.slow))))
        threads[-1].start()
    for t in threads:
        t.join()
    assert [answer.rows for answer in answers] == [[[20000]]] * 12


@scenario(start=False, timeout_s=120)
def nobody_works_for_clients_that_left(ctx):
    a, b = joined(ctx, 10)
    b.ok("CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
         "SELECT i FROM n WHERE i < 0")
    sql = "SELECT count(*) AS n FROM little l JOIN %s e ON e.i = l.grp" % at(b, "endless")
    with a.open_query(sql, timeout_ms=60000):
        wait_until(lambda: in_flight(b) >= 1, 10 * ctx.slow, "the query to reach the other node")
    wait_until(lambda: in_flight(b) == 0 and in_flight(a) == 0, 10 * ctx.slow, "the work to end on both sides")
    message = remote_error(a.query(sql, timeout_ms=400 * ctx.slow), at(b, "endless"))
    assert "time" in message.lower(), message
    wait_until(lambda: in_flight(b) == 0 and in_flight(a) == 0, 10 * ctx.slow, "the work to end after its time")


@scenario(start=False, timeout_s=120)
def joins_wait_for_a_new_master_there(ctx):
    b = ctx.cluster(replicas=2).start()
    b.ok(BIG)
    b.ok(ROWS % (1000, "big"))
    b.wait_converged()
    a = ctx.cluster(replicas=0, settings=knows(b)).start()
    fill_little(a)
    sql = "SELECT count(*) AS n FROM %s b JOIN little l ON l.grp = b.grp" % at(b, "big")
    keep_asking_through_a_failover(a, b, sql, [[1000]])
