"""Reads answered as typed rows: what is written in docs/protocol.md, "Typed rows", read by a decoder of its own."""
import json
import struct

from client import raw_exchange
from harness import scenario

TYPE = "application/vnd.grizzly.rows+v1"
MANY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) "


class Decoder:
    """The results of an answer, and its end: ("E", lsn) or ("X", code, message, statement)."""

    def __init__(self, body):
        self.body, self.at = body, 8
        assert body[:8] == b"GzRows\0\1", body[:40]
        self.results = []
        while True:
            mark = self.take(1)
            if mark == b"C":
                count = self.number()
                names = [self.text() for _ in range(count)]
                self.results.append({"columns": names, "types": [self.text() for _ in range(count)], "rows": []})
            elif mark == b"R":
                last = self.results[-1]
                last["rows"].append([self.value() for _ in last["columns"]])
            elif mark == b"c":
                assert self.number() == len(self.results[-1]["rows"])
            elif mark == b"E":
                assert self.number() == len(self.results)
                self.end = ("E", self.number())
                break
            else:
                assert mark == b"X", (mark, self.at)
                self.end = ("X", self.text(), self.text(), self.number() - 1)
                break
        assert self.at == len(body), "something follows the end"

    def take(self, n):
        assert self.at + n <= len(self.body), "cut short"
        self.at += n
        return self.body[self.at - n:self.at]

    def number(self):
        v = shift = 0
        while True:
            byte = self.take(1)[0]
            v |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return v

    def text(self):
        return self.take(self.number()).decode()

    def value(self):
        tag = self.take(1)[0]
        if tag >= 128:
            return tag - 128
        if tag >= 64:
            return self.take(tag - 64).decode()
        if tag == 0:
            return None
        if tag == 1:
            return struct.unpack("<d", self.take(8))[0]
        if tag == 2:
            n = self.number()
            return n >> 1 if n % 2 == 0 else -(n >> 1) - 1
        assert tag in (3, 4), tag
        data = self.take(self.number())
        return data.decode() if tag == 3 else data


def ask(client, accept=TYPE + ", application/json;q=0.5", **request):
    return client.request("POST", "/query", json.dumps(request), {"Accept": accept})


def typed(client, **request):
    answer = ask(client, **request)
    assert answer.http == 200 and answer.headers["Content-Type"] == TYPE, (answer.http, answer.text[:300])
    return Decoder(answer.body)


@scenario(start=False)
def reads_are_answered_as_typed_rows(ctx):
    c = ctx.cluster(replicas=1).start()
    lsn = c.ok("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, r REAL, b BLOB, x)")["lsn"]
    lsn = c.ok("INSERT INTO t VALUES (1, 'eins', 1.5, x'00ff', NULL), (-128, '', -9e999, x'', 9223372036854775807), "
               "(200, '" + "é" * 40 + "', 0.1, x'01', -9223372036854775808)")["lsn"]
    client = c.client()
    d = typed(client, sql="SELECT * FROM t ORDER BY id")
    assert d.end == ("E", lsn), d.end
    assert d.results == [{"columns": ["id", "name", "r", "b", "x"], "types": ["integer", "text", "real", "blob", ""], "rows": [
        [-128, "", float("-inf"), b"", 9223372036854775807], [1, "eins", 1.5, b"\0\xff", None],
        [200, "é" * 40, 0.1, b"\1", -9223372036854775808]]}], d.results
    d = typed(client, statements=[{"sql": "SELECT 1 AS a"}, {"sql": "SELECT id FROM t WHERE id = ?", "params": [1]}])
    assert [r["rows"] for r in d.results] == [[[1]], [[1]]], d.results
    replica = next(n for n in ("node1", "node2") if n != c.master())
    d = typed(c.client(replica), sql="SELECT id FROM t ORDER BY id")  # forwarded
    assert d.results[0]["rows"] == [[-128], [1], [200]] and d.end == ("E", lsn), (d.results, d.end)
    d = typed(c.client(replica), sql="SELECT count(*) FROM t", consistency="session", min_lsn=lsn)
    assert d.results[0]["rows"] == [[3]], d.results


@scenario(start=False)
def long_reads_are_streamed_as_typed_rows(ctx):
    c = ctx.cluster(replicas=1).start()
    client = c.client()
    answer = ask(client, sql=MANY % 40000 + "SELECT i, 'row '||i, i * 0.5 FROM n")
    assert answer.headers["Content-Type"] == TYPE and answer.headers["Transfer-Encoding"] == "chunked", answer.headers
    d = Decoder(answer.body)
    assert d.end[0] == "E" and len(d.results[0]["rows"]) == 40000
    assert d.results[0]["rows"][29999] == [30000, "row 30000", 15000.0]
    replica = next(n for n in ("node1", "node2") if n != c.master())
    far = ask(c.client(replica), sql=MANY % 40000 + "SELECT i, 'row '||i, i * 0.5 FROM n")
    assert far.headers["Content-Type"] == TYPE and far.body == answer.body


@scenario(start=False)
def reads_that_fail_late(ctx):
    c = ctx.cluster(replicas=0).start()
    client = c.client()
    fails = "SELECT abs(-9223372036854775808 + (i < %d)) AS a FROM n"
    answer = ask(client, sql=MANY % 300000 + fails % 0 + " WHERE i = 300000")  # on another thread, before the first row
    answer.must_fail(400, "SQL_ERROR")
    assert answer.headers["Content-Type"] == "application/json", answer.headers
    body = json.dumps({"sql": MANY % 40000 + fails % 40000}).encode()
    head = "POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n" % (
        c.token, TYPE, len(body))
    received = raw_exchange("127.0.0.1", c.port, [head.encode(), body])
    head, chunks = received.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 ") and TYPE.encode() in head, head
    assert not chunks.endswith(b"0\r\n\r\n"), "the stream ended as if it were whole"
    d = Decoder(unchunk(chunks))
    assert len(d.results[0]["rows"]) == 39999 and d.end == ("X", "SQL_ERROR", "integer overflow", -1), d.end


def unchunk(chunks):
    body = b""
    while chunks:
        size, chunks = chunks.split(b"\r\n", 1)
        body += chunks[:int(size, 16)]
        chunks = chunks[int(size, 16) + 2:]
    return body


@scenario(start=False)
def everything_else_is_json(ctx):
    c = ctx.cluster(replicas=0).start()
    client = c.client()
    ask(client, sql="SELECT * FROM nowhere").must_fail(400, "SQL_ERROR")
    assert ask(client, sql="CREATE TABLE t(id INTEGER PRIMARY KEY)").must()["rows_affected"] == 0
    assert ask(client, sql="INSERT INTO t VALUES (5) RETURNING id").rows == [[5]]
    assert ask(client, sql="SELECT id FROM t", format="objects").rows == [{"id": 5}]
    assert ask(client, sql="SELECT id FROM t", accept="application/json").rows == [[5]]
    assert ask(client, sql="SELECT id FROM t", accept=TYPE + ";q=0").rows == [[5]]
    assert ask(client, sql="SHOW REPLICAS").must()["row_count"] == 1
    assert ask(client, sql="SELECT id FROM 127.0.0.1:%d@t" % c.port).rows == [[5]]
