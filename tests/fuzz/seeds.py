#!/usr/bin/env python3
"""Writes structured inputs for the fuzz targets, from which a search starts: seeds.py TARGET DIRECTORY.

The corpora in the tree have grown from these; scripts/fuzz.sh mixes them in again at each run, so that a target whose
format has changed does not begin from noise. Each target's own comment says what its inputs mean.
"""

import os
import random
import struct
import sys

CLUSTER = b"fuzz-cluster-id!"


def text(s):
    return struct.pack("<I", len(s)) + s


def head(kind, term=1, sender=b"node1"):
    return struct.pack("<IHH", 0x314D7A47, 2, kind) + CLUSTER + struct.pack("<Q", term) + text(sender)


def wire():
    u64 = lambda *v: struct.pack("<%dQ" % len(v), *v)
    page = bytes(4096)
    status = bytes([1, 2, 1, 1, 0]) + struct.pack("<I", 42) + u64(3, 3, 9, 9, 9, 8, 7, 0)
    status += text(b"127.0.0.1:8081") + text(b"127.0.0.1:8181") + text(b"")
    yield "hello", head(1) + u64(7) + text(b"127.0.0.1:8281") + text(b"127.0.0.1:8081") + u64(5)
    yield "start", head(2) + u64(7, 1, 5, 99)
    yield "records", head(3) + u64(7, 4, 5, 5, 0) + text(b"GzR1" + bytes(76))
    yield "commit", head(4) + u64(7, 4, 5)
    yield "snapshot_begin", head(5) + u64(7, 1, 5, 99, 98) + struct.pack("<I", 2)
    yield "snapshot_pages", head(6) + u64(7) + struct.pack("<I", 1) + text(page)
    yield "snapshot_end", head(7) + u64(7)
    yield "snapshot_hashes", head(8) + u64(7) + struct.pack("<II", 1, 2) + u64(11, 12)
    yield "snapshot_want", head(18, sender=b"node2") + u64(7) + struct.pack("<II", 1, 9) + b"\xff\1"
    yield "position", head(16, sender=b"node2") + u64(7, 1, 5, 99, 3) + b"\0" + struct.pack("<I", 2) + u64(1, 1, 2, 4)
    yield "position_none", head(16, sender=b"node2") + u64(7, 0, 0, 0, 0) + b"\1" + struct.pack("<I", 0)
    yield "ack", head(17, sender=b"node2") + u64(7, 5, 4, 99)
    for kind in (32, 33, 34, 35, 36):
        yield "command%d" % kind, head(kind, 2, b"supervisor")
    yield "status", head(48) + status
    yield "cli_request", head(64) + text(b'{"command": "status"}')
    yield "cli_reply", head(65) + text(b"{}")


def pipeline():
    hello = b"\0SP\0\0\x50\0\0"
    for piece in (0, 5, 127):
        for on_file in (0, 1):
            mark = b"\1" * on_file
            said = hello + b"".join(mark + struct.pack(">Q", len(m)) + m for m in (b"one", b"", b"x" * 300))
            yield "messages_%d_%d" % (on_file, piece), bytes([on_file | piece << 1]) + said
            yield "huge_%d_%d" % (on_file, piece), bytes([on_file | piece << 1]) + said + mark + struct.pack(">Q", 1 << 20)
            yield "beyond_%d_%d" % (on_file, piece), bytes([on_file | piece << 1]) + said + mark + b"\xff" * 8
    yield "stranger", b"\0GET / HTTP/1.1\r\n\r\n"
    yield "no_mark", b"\1" + hello + b"\2" + struct.pack(">Q", 0)


def request():
    for i, bits in enumerate((0, 1, 1 << 63, 0x3FF0000000000000, 0x7FEFFFFFFFFFFFFF, 0x3FB999999999999A, 0x4340000000000001)):
        yield "number%d" % i, bytes([0]) + struct.pack("<Q", bits)
    frames = (
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /query HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer 0123\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /query HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        b"POST /query HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"\r\n\nHEAD /status HTTP/1.1\nHost: [::1]:80\n\n",
    )
    for i, frame in enumerate(frames):
        yield "frame%d" % i, bytes([1, i * 3]) + frame
    bodies = (
        b'{"sql": "select 1"}',
        b'{"sql": "insert into t values (?, :a); select 2 /* x */", "params": [1, -9223372036854775808, 1.5, null, true]}',
        b'{"statements": [{"sql": "update t set a = :a", "params": {":a": {"$blob": "AAECAw=="}}}, {"sql": "select 1"}]}',
        b'{"sql": "select ?", "params": [{"$real": "-inf"}], "token": "0123456789abcdef", "consistency": "stale"}',
        b'{"sql": "select \\u0000 \\ud83d\\ude00", "consistency": "session", "min_lsn": 7, "timeout_ms": 100, "format": "ndjson"}',
        b'{"sql": "with a as (select 1) select * from a -- x\\n", "max_lag_ms": 5, "format": "objects"}',
    )
    for i, body in enumerate(bodies):
        yield "body%d" % i, bytes([2]) + body


def http():
    get = b"GET /get?a=b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    bearer = b"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    requests = {
        "get": get, "post": post, "chunked": chunked, "pipelined": get + post + chunked + get,
        "head": b"HEAD /get HTTP/1.1\r\nHost: a\r\n\r\n" + post, "old": b"GET /stream HTTP/1.0\r\n\r\n",
        "old_kept": b"GET /get HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get,
        "streams": b"GET /stream HTTP/1.1\r\n\r\nHEAD /stream HTTP/1.1\r\n\r\n" * 2,
        "later": b"GET /later/x HTTP/1.1\r\n\r\n" * 3 + b"POST /later HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        "close": b"GET /get HTTP/1.1\r\nConnection: close\r\n\r\n" + get,
        "secret": b"GET /secret HTTP/1.1\r\n" + bearer + b"\r\n", "wrong": b"GET /secret HTTP/1.1\r\n\r\n" * 3,
        "mixed": b"POST /mixed HTTP/1.1\r\nContent-Length: 32\r\n\r\n0123456789abcdef0123456789abcdef",
        "lines": b"\r\n\r\n" + get + b"\n" + post, "long_head": b"GET /get HTTP/1.1\r\nX: " + b"x" * 1500,
        "long_body": b"POST /echo HTTP/1.1\r\nContent-Length: 601\r\n\r\n" + b"x" * 601,
        "long_chunks": b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ff\r\n" + b"y" * 255 + b"\r\nfff\r\n",
        "cut": post[:-3], "method": b"BREW /get HTTP/1.1\r\n\r\n", "options": b"OPTIONS /get HTTP/1.1\r\n\r\n",
        "absent": b"GET /nowhere HTTP/1.1\r\n\r\n", "target": b"GET http://a/get HTTP/1.1\r\n\r\n",
    }
    for name, content in requests.items():
        for how in (0, 4, 7, 8 + 1, 24 + 4):
            yield "%s_%d" % (name, how), bytes([how]) + content


def federation():
    texts = (
        b"SELECT * FROM db1:8080@orders o JOIN [::1]:80@\"my table\" USING (id), 10.0.0.7:1@[t] WHERE x IN h:1@u",
        b"WITH RECURSIVE c(n) AS (SELECT 1 FROM h:1@a UNION SELECT n FROM c), d AS (SELECT 2 FROM h:1@b) SELECT * FROM c, d, e",
        b"INSERT OR IGNORE INTO h:1@a(x) SELECT x FROM h:1@b WHERE y = :y; UPDATE h:1@a SET x = ?1 RETURNING *; DELETE FROM h:1@a",
        b"CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END; EXPLAIN FEDERATED SELECT 1 FROM h:1@a -- x:1@y",
        b"SELECT 'h:1@t', $a::b(h:1@t), @p FROM (h:1@a LEFT JOIN (SELECT count(*) FROM h:1@b)) /* h:1@c */",
        b"CREATE VIEW v AS SELECT * FROM h:1@a", b"SELECT * FROM h:0@a", b"SELECT * FROM :1@a", b"SELECT * FROM h:1@\"a",
    )
    for i, sql in enumerate(texts):
        yield "text%d" % i, bytes([0]) + sql
    answers = (
        b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1],[-2.5e3],["x\\"]"],[{"$blob":"AA=="}]],"row_count":4,"lsn":7,'
        b'"node":"n","time_ms":1.5}\n',
        b'{"results":[{"rows":[{"a":null}],"row_count":1},{"rows_affected":1,"last_insert_id":0}],"lsn":1,"status":"ok"}',
        b'{"columns":["a"],"rows":[[1],[2]],"status":"error","code":"TIMEOUT","message":"late","statement":1}',
    )
    for i, answer in enumerate(answers):
        yield "answer%d" % i, bytes([2, i * 9]) + answer
    yield "lines", bytes([3, 4]) + b'{"a":1}\n{"a":2}\n{"status":"error","code":"TIMEOUT","message":"late"}\n'


def rows():
    answers = (
        b'{"status":"ok","columns":["a","b"],"types":["","text"],"rows":[[1,"x\\u00e9\\ud83d\\ude00"],[-2.5e3,null],[{"$blob":"AAE="},'
        b'{"$real":"-inf"}]],"row_count":3,"lsn":7,"node":"n","time_ms":1.5,"remote":[{"x":[]}]}\n',
        b'{"results":[{"columns":["v"],"types":[""],"rows":[[9223372036854775807]],"row_count":1},{"rows_affected":1}],"lsn":1,'
        b'"status":"ok"}',
        b'{"columns":["a"],"types":[""],"rows":[[1],[2]],"status":"error","code":"TIMEOUT","message":"late","statement":1}',
        b'{"status":"ok","rows_affected":1,"last_insert_id":0,"lsn":1}',
    )
    for i, answer in enumerate(answers):
        yield "json%d" % i, bytes([0, i * 9]) + answer
    magic = b"GzRows\0\1"
    typed = (
        b"C\2\1a\1b\0\4textR\x81\x41xR\2\xff\1\0R\1\0\0\0\0\0\0\xf0\x3f\4\2abc\3E\1\7",
        b"C\1\1a\0R\3\x40" + b"x" * 64 + b"c\1C\0R" + b"c\1E\2\x80\1",
        b"C\1\1a\0R\x80X\7TIMEOUT\4late\2",
    )
    for i, answer in enumerate(typed):
        yield "typed%d" % i, bytes([1, i * 9]) + magic + answer


def wal():
    for pages in range(4):
        yield "record%d" % pages, bytes([0, pages << 5 | 6]) + struct.pack(
            "<IHHQQQIIQQQQQ", 0, 0, 1 if pages else 2, 1, 1, 1, 100, pages, 0, 7, 0, 0, 0
        ) + struct.pack("<%dI" % pages, *range(1, pages + 1))
    yield "recordraw", bytes([0, 1]) + b"GzR1" + bytes(76)
    for which in range(4):
        yield "log%d" % which, bytes([1, which])
        for base in range(1, 9):
            yield "log%d_base%d" % (which, base), bytes([1, 0x80 | base << 2 | which])
        for kind in range(16):
            for file in range(2):
                change = bytes(random.randrange(256) for _ in range(12))
                yield "log%d_%d_%d" % (which, kind, file), bytes([1, which, file << 5 | kind]) + change
                yield "log%d_%d_%d_fix" % (which, kind, file), bytes([1, which, file << 5 | 16 | kind]) + change


def stream():
    """Choices of a replica that follows, a master that is followed, and noise around them."""
    near = b"\0"
    hello = b"\0" + near * 3 + b"\0"
    start = b"\1" + near + b"\1" + near * 3
    records = b"\2" + near + b"\x40" + near * 5 + near * 3
    commit = b"\5" + near * 4
    pieces = b"\2" + near + b"\2" + near * 7 + b"\2" + near + b"\6" + near * 7
    snapshot = b"\6" + near * 5 + b"\7" + near * 3 + b"\7" + near * 3 + b"\7" + near * 3 + b"\x09" + near * 2
    yield "rx_follow", b"\0" + hello + start + records * 3 + commit
    yield "rx_pieces", b"\0" + hello + start + records + pieces + commit
    yield "rx_snapshot", b"\0" + hello + snapshot
    yield "rx_diverge", b"\0" + hello + start + b"\x0d\4" + records + b"\x0d\0" + hello + snapshot
    yield "rx_full", b"\0" + hello + start + b"\x0d\2" + records + b"\x0d\0\x0e\xff\xff" + commit
    yield "rx_term", b"\0" + hello + start + records + b"\x0c\0" + hello + start + commit
    yield "rx_hello_far", b"\0\0\x36" + near * 2 + b"\0" + hello
    position = b"\3" + near * 6 + b"\3" + near * 6
    yield "tx_join", b"\1\0\0" + position + b"\0\0" * 6 + b"\4" + near * 3 + b"\0\6\xff\0\0\0"
    yield "tx_snapshot", b"\1\0\0\3" + near * 5 + b"\7\0" + b"\0\0" * 8
    yield "tx_trimmed", b"\1\0\0\7\x61\7\x61" + position + b"\0\0" * 8
    for i in range(40):
        yield "noise%d" % i, bytes([i & 1]) + hello * (i % 3) + bytes(random.randrange(256) for _ in range(20 + 8 * i))


def sql():
    statements = """select * from t where a = 1
select b, count(*), sum(c) from t group by b order by 2 desc limit 3
select t.a, z.w from t left join z on z.a = t.a where t.b like '%1%'
with recursive n(i) as (select 1 union all select i + 1 from n) select * from n
with recursive n(i) as (select 1 union all select i + 1 from n limit 9) select i, i * 1e300, -i, x'00ff', null from n
values (1, 2.5, 'x'), (9223372036854775807, -0.0, x'')
explain query plan select * from z
select json_extract('{"a": [1, 2]}', '$.a[1]'), json_group_array(a) from t
select printf('%.100f %s %lld', 1.5, b, a), hex(randomblob(9)), quote(d) from t
select group_concat(b, ',') over (order by a rows between 1 preceding and current row) from t
insert into t values (100, 'x', 1, x'01') on conflict (a) do update set b = excluded.b returning *
insert into t (b) values ('a'), ('b'); select changes(), last_insert_rowid()
update t set b = b || 'x' where a in (select k from v) returning a, typeof(b)
delete from t where a > 10; insert into v select a, b from t
create table n (a, b as (a * 2) stored, check (a > 0)); insert into n values (1); alter table n rename column a to q; drop table n
create index i on t (c, lower(b)) where a > 3; reindex i; analyze
create temp table e (a); insert into e values (1)
pragma table_info(t); pragma foreign_key_check
pragma user_version = 7
pragma journal_mode = wal
pragma writable_schema = on; update sqlite_schema set sql = 'x'
attach 'x.db' as x
vacuum into 'x.db'
vacuum
begin; commit
savepoint a; release a
select load_extension('x')
select readfile('/etc/passwd'), writefile('x', 'y')
create virtual table f using fts5(words); insert into f values ('a')
select * from pragma_database_list, sqlite_schema, pragma_function_list
insert or rollback into t values (1, 1, 1, 1)
select raise(abort, 'x')
select zeroblob(100000000), replace(hex(zeroblob(100000)), '0', 'xxxxxxxx')
select a from t where b match 'x' union select 1 except select 2 /* c */ -- d
select ((((((((((1))))))))))
select 1e400, -1e400, 1e400 - 1e400, cast('9223372036854775808' as integer), 0x7fffffffffffffff
select date('now'), strftime('%s', 'now', '+1 day', 'utc'), unixepoch()
update sqlite_schema set name = 'a'; delete from sqlite_sequence
create trigger h before update of b on t when new.b is null begin select raise(ignore); end; update t set b = null""".split("\n")
    for i, statement in enumerate(statements):
        yield "sql%02d" % i, statement.encode()
    yield "params", b'{"sql": "select ?, ?2, :a, @b", "params": [1, "x", {"$blob": "AAA="}, null]}'
    yield "named", b'{"sql": "insert into t values (:a, $b, @c, null)", "params": {"a": 500, "b": "y", "c": 2.5}}'
    yield "batch", b'{"statements": [{"sql": "insert into v values (?, 1)", "params": [9]}, {"sql": "select * from v"}]}'
    yield "objects", b'{"sql": "select a, a, b as a from t", "format": "objects"}'
    yield "ndjson", b'{"sql": "select * from t", "format": "ndjson"}'


def cluster():
    answer = lambda n, flags: bytes([n << 4, flags]) + bytes(7)
    tick = b"\x0e\0"
    up = b"".join(answer(n, 2) for n in range(3))
    yield "first_start", b"\1\x22" + tick + answer(0, 3) + up * 3 + tick * 5
    yield "adopt", b"\1\x52\0\1\1\1" + up + tick + up * 3 + tick
    yield "failover", b"\1\x22" + tick + answer(0, 3) + up + b"\x08\1\0" + (tick + up) * 6
    yield "switchover", b"\1\x22" + tick + (answer(0, 3) + up + tick) * 3 + b"\x1c" + (tick + answer(0, 0x43) + up) * 6
    yield "stop", b"\1\x22" + tick + answer(0, 3) + up + b"\x0d\0" + tick + b"\x08\0\0\x18\0\0\x28\0\0" + tick
    yield "silent", b"\1\x22" + (tick + b"\x0f\xff\x0a\1\x1a\1") * 8
    yield "impossible_term", b"\1\x22" + tick + bytes([0x10, 2, 7]) + struct.pack("<Q", 1 << 62) + bytes(6) + (tick + up) * 3
    yield "unstorable", b"\1\x22" + tick + answer(0, 3) + up + b"\x0b\1\x08\1\0" + (tick + up) * 3 + b"\x0b\0" + (tick + up) * 3
    for i, text in enumerate(("status", "switchover", "switchover-result", "stop", "nonsense")):
        yield "ask%d" % i, b"\0" + ('{"command": "%s", "to": "node2", "id": 1}' % text).encode()
    yield "show", b"\0" + b'{"cluster":"00","term":3,"master":"node1","endpoint":"a:1","failovers":1,"reason":"","nodes":[{"id":"node1","role":"master","state":"up","pid":4,"lag_ms":0}]}'
    for i in range(30):
        yield "noise%d" % i, bytes([1, i * 8 & 0xFF]) + bytes(random.randrange(256) for _ in range(20 + 10 * i))


def files():
    configs = (
        b"{}",
        b'// a comment\n{"cluster": "000102030405060708090a0b0c0d0e0f", "replicas": 2, "bind": "127.0.0.1", "http_port": 8080}',
        b'{"durability": "all", "heartbeat": {"interval_ms": 100, "misses": 3}, "commit_timeout_ms": 5000, /* x */}',
        b'{"http": {"workers": 2, "body_bytes_max": 1048576, "connections_max": 10}, "query": {"timeout_ms": 1, "slow_threads": 4}}',
        b'{"store": {"segment_size_bytes": 65536, "keep_bytes": 1000000}, "remote": {"max_connections": 10}, "bind": "::1"}',
    )
    for i, config in enumerate(configs):
        yield "config%d" % i, b"\0" + config
    yield "token", b"\2" + b"0123456789abcdef\n"
    slot = b"GzS1" + struct.pack("<IQ", 8, 1) + bytes(8) + b"promised"
    yield "slots", b"\3\3" + bytes([len(slot)]) + slot + bytes([len(slot)]) + slot
    yield "slots_first", b"\3\1" + bytes([len(slot)]) + slot
    yield "slots_none", b"\3\0\0\0"
    for how in (0, 1, 0x40, 0x41, 0x80):
        for at in (0, 16, 100, 4096, 4104, 8192, 20480):
            yield "store%x_%d" % (how, at), bytes([4, how]) + struct.pack("<HBB", at & 0xFFFF, 0, 4) + b"\1\xff\x80\7"
            yield "copy%x_%d" % (how, at), bytes([6, how & 9]) + bytes(3) + struct.pack("<HBB", at, 0, 4) + b"\1\xff\x80\7"


TARGETS = {"cluster": cluster, "federation": federation, "files": files, "http": http, "pipeline": pipeline, "request": request, "rows": rows, "sql": sql,
           "stream": stream, "wal": wal, "wire": wire}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit("usage: seeds.py %s DIRECTORY" % "|".join(sorted(TARGETS)))
    random.seed(1)
    os.makedirs(sys.argv[2], exist_ok=True)
    for name, content in TARGETS[sys.argv[1]]():
        with open(os.path.join(sys.argv[2], name), "wb") as f:
            f.write(content)


if __name__ == "__main__":
    main()
