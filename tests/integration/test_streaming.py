"""Results larger than memory should hold: streamed, with back-pressure, at flat memory, never silently cut."""
import json
import time

from cluster import rss_kb
from harness import scenario

SHARED = {"replicas": 1, "settings": {"query": {"timeout_ms": 120000, "timeout_max_ms": 600000}}}
ROWS = 1000000
MILLION = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) "
           "SELECT i, 'a row of some eighty bytes, which makes the whole result far larger than any buffer' AS t FROM n")


class Memory:
    """The highest resident size of the master while a scenario reads."""

    def __init__(self, c):
        self.pid = c.pid(c.master())
        self.first = self.highest = rss_kb(self.pid)

    def look(self):
        self.highest = max(self.highest, rss_kb(self.pid))

    def must_be_flat(self, c, limit_kb=16 << 10):
        grown = self.highest - self.first
        c.ctx.notes.append("memory grew by %.1f MB" % (grown / 1024))
        assert c.ctx.sanitizer or grown < limit_kb, "memory grew by %d KB" % grown


def rows_of(c):
    return ROWS // (1 if not c.ctx.sanitizer else 5)


@scenario(shared=True, timeout_s=120)
def million_rows_as_ndjson_at_flat_memory(c):
    c.ok("SELECT 1")
    memory = Memory(c)
    body = json.dumps({"sql": MILLION % rows_of(c), "format": "ndjson"})
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", c.port, timeout=60 * c.ctx.slow)
    connection.request("POST", "/query", body, {"Authorization": "Bearer " + c.token})
    response = connection.getresponse()
    count, total, last = 0, 0, b""
    while True:
        piece = response.read(1 << 20)
        if not piece:
            break
        count += piece.count(b"\n")
        total += len(piece)
        last = (last + piece)[-500:]
        memory.look()
    assert count == rows_of(c), count
    assert json.loads(last.splitlines()[-1])["i"] == rows_of(c), last
    c.ctx.notes.append("%.0f MB" % (total / 1e6))
    memory.must_be_flat(c)


@scenario(shared=True, timeout_s=120)
def million_rows_as_json_is_whole_and_says_ok_last(c):
    answer = c.query(MILLION % rows_of(c))
    assert answer.ok and answer.json["row_count"] == len(answer.json["rows"]) == rows_of(c)
    assert answer.json["rows"][-1][0] == rows_of(c)
    tail = answer.text[-400:]
    assert tail.rfind('"status"') > tail.rfind('"row_count"') or '"status"' in tail, tail


@scenario(shared=True, timeout_s=90)
def client_that_reads_nothing_costs_little_memory_and_blocks_nobody(c):
    memory = Memory(c)
    s = c.open_query(MILLION % rows_of(c), format="ndjson")
    with s:
        give_up = time.monotonic() + 1.5
        while time.monotonic() < give_up:
            assert c.query("SELECT 1").value == 1
            memory.look()
        total = 0
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            total += len(piece)
            memory.look()
    assert total > 90 * rows_of(c), total
    memory.must_be_flat(c)


@scenario(shared=True, timeout_s=60)
def streams_that_fail_midway_say_so_and_close(c):
    """The last row fails: an error after rows were sent, never a shorter result that looks whole."""
    sql = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300000) "
           "SELECT i, CASE WHEN i < 299999 THEN 'some text to fill the buffers with' "
           "ELSE abs(-9223372036854775807 - 1) END FROM n")
    for form in ("rows", "objects", "ndjson"):
        with c.open_query(sql, format=form) as s:
            received = b""
            while True:
                try:
                    piece = s.recv(1 << 20)
                except ConnectionResetError:
                    break
                if not piece:
                    break
                received += piece
        assert received.startswith(b"HTTP/1.1 200") and len(received) > 1 << 20, received[:300]
        assert b'"status":"error"' in received[-600:] and b"SQL_ERROR" in received[-600:], received[-600:]
        assert b'"status":"ok"' not in received[-600:], received[-600:]
        assert not received.endswith(b"0\r\n\r\n"), "a broken stream ended as a whole one"


@scenario(shared=True, timeout_s=60)
def streams_are_one_snapshot_while_writes_go_on(c):
    c.ok("DROP TABLE IF EXISTS s; CREATE TABLE s(v INTEGER, pad TEXT)")
    c.ok("INSERT INTO s WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 50000) "
         "SELECT 1, hex(randomblob(40)) FROM n")
    with c.open_query("SELECT v, pad FROM s", format="ndjson") as s:
        received = s.recv(1000)
        for _ in range(5):
            c.ok("UPDATE s SET v = v + 1")
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            received += piece
    versions = {line.split(b'"v":')[1].split(b",")[0] for line in received.split(b"\n") if b'"v":' in line and
                line.strip().endswith(b"}")}
    assert len(versions) == 1, versions
    assert c.query("SELECT DISTINCT v FROM s").value == 6


@scenario(shared=True, timeout_s=60)
def clients_that_leave_a_stream_free_its_thread(c):
    for _ in range(20):
        with c.open_query(MILLION % ROWS, format="ndjson") as s:
            s.recv(1000)
    assert c.query("SELECT count(*) FROM (%s)" % (MILLION % 100000), timeout_ms=20000).value == 100000
