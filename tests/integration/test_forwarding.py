"""Requests a replica forwards, answers on their way back, and reads that wait: for an LSN, for a thread, for a master.

Where a master must misbehave, a FakeMaster takes the dead one's port while the supervisor is frozen: the replicas still
believe in that address.
"""
import json
import os
import signal
import threading
import time

from client import read_to_end
from cluster import ByHand, alive, rss_kb, wait_until
from fakes import FakeMaster
from harness import scenario

SHARED = {"replicas": 2, "settings": {"query": {"timeout_ms": 120000, "timeout_max_ms": 600000}}}
ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) SELECT i, '%s' AS t FROM n"
TEXT = "a row of some eighty bytes, which makes the whole result far larger than any buffer"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"


def raw_query(c, node, sql, **more):
    with c.open_query(sql, node, **more) as s:
        return read_to_end(s)


def metric(c, node, name):
    text = c.client(node).request("GET", "/metrics").text
    return int(next(s for s in text.splitlines() if s.split("{")[0] == "grizzly_" + name).rsplit(" ", 1)[1])


def send_json(s, status, text):
    s.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status, len(text), text))
    return True


# -- answers on their way back


@scenario(shared=True, timeout_s=90)
def large_answers_pass_at_flat_memory(c):
    node = c.replicas()[0]
    rows = 1000000 if not c.ctx.sanitizer else 100000
    c.query(ROWS % (20000, TEXT), node=node).must()
    pid = c.pid(node)
    first = highest = rss_kb(pid)
    total, last = 0, b""
    with c.open_query(ROWS % (rows, TEXT), node, format="ndjson") as s:
        time.sleep(0.5)  # meanwhile the master must not be able to push it all into the node
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            total += len(piece)
            last = (last + piece)[-300:]
            highest = max(highest, rss_kb(pid))
    assert total > 90 * rows and last.endswith(b"0\r\n\r\n") and b'"i":%d,' % rows in last, (total, last)
    c.ctx.note("%.0f MB, memory grew by %.1f MB" % (total / 1e6, (highest - first) / 1024))
    assert c.ctx.sanitizer or highest - first < 16 << 10, "memory grew by %d KB" % (highest - first)


@scenario(shared=True, timeout_s=60)
def answers_of_every_size_come_back_whole(c):
    node = c.replicas()[0]
    client = c.client(node, keep_alive=True)
    for size in (1, 60000, 65000, 65536, 66000, 70000, 130000, 262144, 300000, 5000000):
        answer = client.query("SELECT printf('%%.%dc', 'x')" % size).must()
        assert answer["rows"] == [["x" * size]], size
        rows = client.query(ROWS % (max(1, size // 90), TEXT)).must()
        assert rows["row_count"] == len(rows["rows"]) == max(1, size // 90), size
    c.ok("DROP TABLE IF EXISTS big; CREATE TABLE big(v)")
    wrote = client.query("INSERT INTO big VALUES (printf('%.200000c', 'y')) RETURNING v").must()
    assert wrote["rows"] == [["y" * 200000]] and wrote["rows_affected"] == 1


@scenario(shared=True, timeout_s=60)
def clients_that_leave_a_forwarded_answer_free_everything(c):
    node = c.replicas()[0]
    for i in range(20):
        with c.open_query(ROWS % (3000000, TEXT), node, format="ndjson") as s:
            if i % 2:
                s.recv(1000)
    for _ in range(8):  # more than there are threads for long reads: gone clients must not hold them
        c.open_query(ENDLESS, node).close()
    c.wait(lambda: metric(c, node, "http_requests_in_flight") <= 1, 10, "the node to forget them")
    c.wait(lambda: metric(c, c.master(), "http_requests_in_flight") <= 1, 10, "the master to forget them")
    assert c.query("SELECT count(*) FROM (%s)" % (ROWS % (100000, "x")), node=node, timeout_ms=20000).value == 100000


@scenario(shared=True, timeout_s=60)
def reader_that_stops_does_not_stop_others(c):
    node = c.replicas()[0]
    with c.open_query(ROWS % (300000, TEXT), node, format="ndjson") as s:
        s.recv(1000)
        client = c.client(node, keep_alive=True)
        give_up = time.monotonic() + 1
        while time.monotonic() < give_up:
            assert client.query("SELECT 1").value == 1
        assert read_to_end(s).endswith(b"0\r\n\r\n")


@scenario(shared=True, timeout_s=60)
def failure_midway_reaches_the_client_of_a_replica(c):
    sql = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 100000) "
           "SELECT i, CASE WHEN i < 99999 THEN 'some text to fill the buffers with' "
           "ELSE abs(-9223372036854775807 - 1) END FROM n")
    received = raw_query(c, c.replicas()[0], sql)
    assert received.startswith(b"HTTP/1.1 200") and len(received) > 1 << 20, received[:300]
    assert b'"status":"error"' in received[-600:] and b"SQL_ERROR" in received[-600:], received[-600:]
    assert not received.endswith(b"0\r\n\r\n"), "a broken answer ended as a whole one"


@scenario(timeout_s=60)
def master_that_dies_midway_breaks_the_answer(c):
    node, master = c.replicas()[0], c.master()
    before = metric(c, node, "requests_forwarded_total")
    with c.open_query(ROWS % (3000000, TEXT), node, format="ndjson") as s:
        received = s.recv(1000)
        c.kill(master)
        received += read_to_end(s)
    assert received.startswith(b"HTTP/1.1 200") and not received.endswith(b"0\r\n\r\n"), received[-100:]
    assert metric(c, node, "requests_forwarded_total") == before + 1, "an answer that had begun was asked for again"


# -- a master that misbehaves


@scenario(timeout_s=60)
def read_is_asked_again_a_few_times_when_nothing_came(c):
    with FakeMaster(c, lambda n, s: n >= 3 and send_json(s, 200, b'{"status":"ok","third":true}')) as fake:
        assert c.query("SELECT 1", node=fake.node, timeout_ms=5000).json == {"status": "ok", "third": True}
        assert len(fake.requests) == 3, fake.requests


@scenario(timeout_s=60)
def read_is_not_asked_again_without_end(c):
    with FakeMaster(c, lambda n, s: False) as fake:
        started = time.monotonic()
        error = c.query("SELECT 1", node=fake.node, timeout_ms=20000).must_fail(502, "REMOTE_ERROR")
        assert "write" not in error["message"] and time.monotonic() - started < 10, error
        assert 2 <= len(fake.requests) <= 6, len(fake.requests)


@scenario(timeout_s=60)
def write_is_sent_once_whatever_happens(c):
    with FakeMaster(c, lambda n, s: False) as fake:
        error = c.query("INSERT INTO fake VALUES (1)", node=fake.node, timeout_ms=5000).must_fail(502, "REMOTE_ERROR")
        assert "may have been committed" in error["message"] and len(fake.requests) == 1, (error, fake.requests)


@scenario(timeout_s=60)
def small_answer_that_breaks_off_is_passed_on_broken(c):
    def answer(_, s):
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                  b"1c\r\n" + b'{"columns":["a"],"rows":[[1]' + b"\r\n")
        return False
    with FakeMaster(c, answer) as fake:
        received = raw_query(c, fake.node, "SELECT 1", timeout_ms=5000)
        assert b'"rows":[[1]' in received and not received.endswith(b"0\r\n\r\n"), received
        assert len(fake.requests) == 1, fake.requests
        error = c.query("INSERT INTO fake VALUES (1)", node=fake.node, timeout_ms=5000).must_fail(502, "REMOTE_ERROR")
        assert "may have been committed" in error["message"], error


@scenario(timeout_s=60)
def master_that_is_silent_times_out_in_fitting_words(c):
    done = threading.Event()
    with FakeMaster(c, lambda n, s: done.wait(20)) as fake:
        error = c.query("SELECT 1", node=fake.node, timeout_ms=300).must_fail(504, "TIMEOUT")
        assert "write" not in error["message"], error
        error = c.query("INSERT INTO fake VALUES (1)", node=fake.node, timeout_ms=300).must_fail(504, "TIMEOUT")
        assert "may have been committed" in error["message"], error
        left = [int(fake.headers(i)["grizzly-timeout-ms"]) for i in range(len(fake.requests))]
        assert len(left) == 2 and all(200 <= ms <= 300 for ms in left), left
        done.set()


@scenario(timeout_s=60)
def request_refused_with_no_master_waits_and_is_sent_again(c):
    refusal = b'{"status":"error","code":"NO_MASTER","message":"not me"}'
    with FakeMaster(c, lambda n, s: send_json(s, 503, refusal) if n < 4 else send_json(s, 200, b'{"n":4}')) as fake:
        assert c.query("INSERT INTO fake VALUES (1)", node=fake.node, timeout_ms=5000).json == {"n": 4}


@scenario(timeout_s=60)
def stream_that_falls_silent_ends_broken_at_the_deadline(c):
    done = threading.Event()

    def answer(_, s):
        s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000 + b"\r\n")
        done.wait(20)
    with FakeMaster(c, answer) as fake:
        started = time.monotonic()
        received = raw_query(c, fake.node, "SELECT 1", timeout_ms=700)
        assert time.monotonic() - started < 5 * c.ctx.slow
        assert received.count(b"x") >= 0x20000 and not received.endswith(b"0\r\n\r\n"), received[-50:]
        done.set()


@scenario(timeout_s=60)
def node_stops_in_time_whatever_it_forwards(c):
    """A silent master, an answer that stalls, a client that takes nothing, reads that wait: none holds up the end."""
    def answer(n, s):
        if n % 2:
            s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n" + b"x" * 0x80000 + b"\r\n")
        time.sleep(40)
    with FakeMaster(c, answer) as fake:
        pid = c.last_pids[fake.node]
        asked = [c.open_query(sql, fake.node, timeout_ms=30000, **more) for _ in range(4) for sql, more in (
            ("SELECT 1", {}), ("INSERT INTO fake VALUES (1)", {}),
            ("SELECT 1", {"consistency": "session", "min_lsn": 1 << 40}))]
        c.wait(lambda: len(fake.requests) == 8, 10, "the forwarded ones to arrive")
        asked.pop().close()
        started = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        # The frozen supervisor cannot reap it: a zombie has ended.
        wait_until(lambda: not alive(pid), 8 * c.ctx.slow, "the node to end")
        c.ctx.note("ended in %.1f s" % (time.monotonic() - started))
        answers = [read_to_end(s) for s in asked]
        assert sum(b"NO_MASTER" in a for a in answers) == 3, answers  # those that waited for their LSN


# -- who may forward, and what a replica may decide itself


@scenario(shared=True)
def forwarded_requests_are_not_forwarded_again(c):
    node = c.replicas()[0]
    c.ok("CREATE TABLE IF NOT EXISTS once(v)")
    c.wait_converged()
    for consistency in ("linearizable", "session", "stale"):
        body = json.dumps({"sql": "INSERT INTO once VALUES (1)", "consistency": consistency})
        c.client(node).request("POST", "/query", body, {"Grizzly-Forwarded": "1"}).must_fail(503, "NO_MASTER")
    assert c.query("SELECT count(*) FROM once").value == 0


@scenario(shared=True)
def session_writes_do_not_trip_over_a_table_made_a_moment_ago(c):
    node = c.replicas()[0]
    client, pid = c.client(keep_alive=True), c.pid(node)
    for i in range(10):
        client.query("CREATE TABLE fresh%d(v)" % i).must()
        c.ok("INSERT INTO fresh%d VALUES (1)" % i, node=node, consistency="session")
    c.query("SELECT * FROM nowhere", node=node, consistency="stale").must_fail(400, "SQL_ERROR")
    assert pid == c.pid(node)


@scenario(shared=True)
def wrong_token_in_the_body_is_refused_and_counted(c):
    before = metric(c, c.master(), "http_auth_failures_total")
    body = json.dumps({"sql": "SELECT 1", "token": "wrong"})
    for token in (None, True):
        answer = c.client().request("POST", "/query", body, token=token)
        answer.must_fail(401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert metric(c, c.master(), "http_auth_failures_total") == before + 2


@scenario(timeout_s=60)
def ready_says_in_the_usual_shape_why_not(c):
    """A replica that has restarted and found no master."""
    master, node = c.master(), c.replicas()[0]
    frozen = c.freeze("supervisor")
    for victim in (master, node):
        os.kill(c.last_pids[victim], signal.SIGKILL)
    wait_until(lambda: not alive(c.last_pids[node]), 10, "the replica to end")
    with ByHand(c, "grizzly-replica", node) as by_hand:
        answer = c.client(node).request("GET", "/ready", token=None)
        answer.must_fail(503, "NO_MASTER")
        assert answer.json["role"] == "replica" and answer.json["term"] >= 1, answer.text
        by_hand.process.terminate()
        assert by_hand.process.wait(timeout=10 * c.ctx.slow) == 0
    c.thaw(frozen)


# -- reads that wait


@scenario(shared=True, timeout_s=60)
def reads_waiting_for_an_lsn_hold_up_nobody(c):
    node = c.replicas()[0]
    waiting = [c.open_query("SELECT 1", node, consistency="session", min_lsn=1 << 40, timeout_ms=3000 * c.ctx.slow)
               for _ in range(50)]
    started = time.monotonic()
    long_read = "SELECT count(*) FROM (%s)" % (ROWS % (200000, "x"))
    assert c.query(long_read, node=node, consistency="stale").value == 200000
    assert time.monotonic() - started < 2.5 * c.ctx.slow, "a long read waited for those that wait for an LSN"
    waiting.pop().close()
    for s in waiting:
        with s:
            received = read_to_end(s)
            assert b" 504 " in received.split(b"\r\n")[0] and b"min_lsn in time" in received, received


@scenario(shared=True, timeout_s=60)
def session_reads_follow_a_write_at_once(c):
    c.ok("DROP TABLE IF EXISTS s; CREATE TABLE s(v)")
    c.wait_converged()
    writer, reader = c.client(keep_alive=True), c.client(c.replicas()[0], keep_alive=True)
    waits = []
    for i in range(200):
        lsn = writer.query("INSERT INTO s VALUES (%d)" % i).must()["lsn"]
        started = time.monotonic()
        assert reader.query("SELECT max(v) FROM s", consistency="session", min_lsn=lsn).value == i
        waits.append((time.monotonic() - started) * 1000)
    waits.sort()
    c.ctx.note("median %.1f ms, 95th %.1f ms" % (waits[100], waits[190]))
    assert waits[100] < 6 * c.ctx.slow, waits[100]


@scenario(shared=True, timeout_s=60)
def reads_with_an_lsn_to_come_are_answered_when_it_comes(c):
    node = c.replicas()[0]
    c.ok("DROP TABLE IF EXISTS w; CREATE TABLE w(v)")
    for target in (node, c.master()):
        lsn = c.ok("INSERT INTO w VALUES (1)")["lsn"]
        waiting = [c.open_query("SELECT 'got it'", target, consistency="session", min_lsn=lsn + 1 + i)
                   for i in range(5)]
        for _ in range(5):
            c.ok("INSERT INTO w VALUES (1)")
        for s in waiting:
            with s:
                assert b"got it" in read_to_end(s), target


@scenario(shared=True, timeout_s=60)
def queued_long_reads_end_at_their_own_deadline(c):
    node = c.replicas()[0]
    busy = [c.open_query(ENDLESS, node, consistency="stale", timeout_ms=60000) for _ in range(4)]
    c.wait(lambda: metric(c, node, "reads_slow_total") >= 4, 10, "the threads to be busy")
    started = time.monotonic()
    c.query(ENDLESS, node=node, consistency="stale", timeout_ms=500).must_fail(504, "TIMEOUT")
    assert 0.4 < time.monotonic() - started < 3 * c.ctx.slow, time.monotonic() - started
    for s in busy:
        s.close()
    assert c.query("SELECT count(*) FROM (%s)" % (ROWS % (100000, "x")), node=node, consistency="stale",
                   timeout_ms=20000).value == 100000


@scenario(shared=True, timeout_s=60)
def reader_that_stops_holds_its_thread_no_longer_than_its_timeout(c):
    node = c.replicas()[0]
    stuck = [c.open_query(ROWS % (3000000, TEXT), node, consistency="stale", timeout_ms=1000) for _ in range(4)]
    time.sleep(0.3)
    count = c.query("SELECT count(*) FROM (%s)" % (ROWS % (100000, "x")), node=node, consistency="stale",
                    timeout_ms=10000 * c.ctx.slow)
    assert count.value == 100000
    for s in stuck:
        with s:
            assert not read_to_end(s).endswith(b"0\r\n\r\n")


@scenario(shared=True, timeout_s=60)
def no_kind_of_request_outlives_its_timeout(c):
    heavy_write = "INSERT INTO heavy WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n LIMIT 1e9"
    c.ok("CREATE TABLE IF NOT EXISTS heavy(v)")
    c.wait_converged()
    for node in (c.master(), c.replicas()[0]):
        for sql in (ENDLESS, heavy_write):
            messages = []
            # The master's own word comes in time, unless the machine is busy.
            while not messages or "may have been" in messages[-1]:
                started = time.monotonic()
                messages.append(c.query(sql, node=node, timeout_ms=500).must_fail(504, "TIMEOUT")["message"])
                assert time.monotonic() - started > 0.3 and len(messages) < 20, (node, sql, messages)
    assert c.query("SELECT count(*) FROM heavy").value == 0


@scenario(timeout_s=60)
def replica_that_just_restarted_does_not_deny_a_table(c):
    """It shows its last checkpoint until it hears from a master; that a table is not in it proves nothing."""
    c.ok("CREATE TABLE young(v)")
    c.ok("INSERT INTO young VALUES (7)")
    c.wait_converged()
    node = c.replicas()[0]
    c.kill_all()
    with ByHand(c, "grizzly-replica", node):
        for mode in ("stale", "session"):
            c.query("SELECT v FROM young", node=node, consistency=mode, timeout_ms=400).must_fail(503, "NO_MASTER")
    c.start()
    assert c.query("SELECT v FROM young", node=node, consistency="stale").value == 7
