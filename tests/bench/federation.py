"""Tables of another cluster: what a query costs here, beside the same query asked there directly. Used by bench.py only.

Two clusters on loopback, one node each. The far one has r, 100,000 rows (id integer primary key, name text, amount real,
grp = id % 100); the near one has l1k (ids 100, 200, …, in ten batches) and l100k. With --postgres the same tables in two
scratch servers of PostgreSQL 15 joined by postgres_fdw (use_remote_estimate, ANALYZE, fetch_size as it comes and 10000)
are the yardstick. Both clients time until all of the answer has come to them, and keep their connection.
"""

import json
import os
import re
import socket
import statistics
import time

from cluster import BenchError, Cluster
from postgres import Postgres

ROWS = 100000
RUNS = 7
COUNT = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) "

# name, what it is, the query ({r}: the far table), rows of the answer, the target's text, and whether it is met:
# (milliseconds here, directly there or None, the better of postgres_fdw or None, requests)
QUERIES = (
    ("a", "100 local rows joined by id",
     "SELECT l.id, l.note, r.name, r.amount FROM l1k l JOIN {r} r ON r.id = l.id WHERE l.batch = 3 ORDER BY l.id", 100,
     "20 x as fast, n/500 + 3 requests",
     lambda ours, direct, pg, n: n <= 100 / 500 + 3 and (pg is None or 20 * ours <= pg)),
    ("b", "GROUP BY grp with count and sum",
     "SELECT grp, count(*), sum(amount) FROM {r} r GROUP BY grp ORDER BY grp", 100,
     "1.2 x the direct query", lambda ours, direct, pg, n: ours <= 1.2 * direct),
    ("c", "fetch of all rows",
     "SELECT * FROM {r} r", ROWS,
     "2 x as fast", lambda ours, direct, pg, n: pg is None or 2 * ours <= pg),
    ("d", "WHERE id > 99900",
     "SELECT * FROM {r} r WHERE id > 99900", 100,
     "no slower", lambda ours, direct, pg, n: pg is None or ours <= pg),
    ("d, joined", "the same joined with 1,000 local rows",
     "SELECT l.id, r.name FROM l1k l JOIN {r} r ON r.id = l.id WHERE r.id > 99900", 1,
     "no slower", lambda ours, direct, pg, n: pg is None or ours <= pg),
    ("e", "100k joined with 100k, a sum",
     "SELECT sum(r.amount * l.factor) FROM l100k l JOIN {r} r ON r.id = l.id", 1,
     "2 x as fast", lambda ours, direct, pg, n: pg is None or 2 * ours <= pg),
)
MEMORY_MB = 60.0  # of the asking node above idle, in c and e


class Fetcher:
    """A client that adds as little as Python can: reads an answer into one buffer and looks at it afterwards."""

    def __init__(self, address, token):
        host, port = address.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), 60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = "POST /query HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %%d\r\n\r\n" % (
            address, token)
        self.buffer = bytearray(64 << 20)

    def close(self):
        self.sock.close()

    def fetch(self, sql):
        """(milliseconds until the answer was here, the answer)."""
        body = json.dumps({"sql": sql}).encode()
        request = (self.head % len(body)).encode() + body
        view, got, end = memoryview(self.buffer), 0, None
        began = time.perf_counter()
        self.sock.sendall(request)
        while end is None or not end(got):
            n = self.sock.recv_into(view[got:])
            if n == 0:
                raise BenchError("closed in the middle of an answer")
            got += n
            if end is None:
                end = self.find_end(got)
        took_ms = (time.perf_counter() - began) * 1000
        return took_ms, self.parse(got)

    def find_end(self, got):
        """Once the head is there: a function that tells whether all is."""
        head_len = self.buffer.find(b"\r\n\r\n", 0, got) + 4
        if head_len < 4:
            return None
        length = re.search(rb"\r\ncontent-length: (\d+)", bytes(self.buffer[:head_len]).lower())
        if length is not None:
            return lambda n: n >= head_len + int(length[1])
        return lambda n: self.buffer[n - 5:n] == b"0\r\n\r\n"

    def parse(self, got):
        head, body = bytes(self.buffer[:got]).split(b"\r\n\r\n", 1)
        if b"chunked" in head.lower():
            pieces, at = [], 0
            while True:
                line = body.index(b"\r\n", at)
                size = int(body[at:line], 16)
                if size == 0:
                    break
                pieces.append(body[line + 2:line + 2 + size])
                at = line + 2 + size + 2
            body = b"".join(pieces)
        return json.loads(body)


# ---- Grizzly


def fill_far(cluster):
    client = cluster.client()
    client.query("CREATE TABLE r(id INTEGER PRIMARY KEY, name TEXT, amount REAL, grp INTEGER)")
    client.query("INSERT INTO r " + COUNT % ROWS + "SELECT n, 'name of row ' || n, n * 0.25, n % 100 FROM c")
    client.close()


def fill_near(cluster):
    client = cluster.client()
    client.query("CREATE TABLE l1k(id INTEGER PRIMARY KEY, note TEXT, batch INTEGER)")
    client.query("INSERT INTO l1k " + COUNT % 1000 + "SELECT n * 100, 'note ' || n, n % 10 FROM c")
    client.query("CREATE TABLE l100k(id INTEGER PRIMARY KEY, factor REAL)")
    client.query("INSERT INTO l100k " + COUNT % ROWS + "SELECT n, n * 0.5 FROM c")
    client.close()


def check(name, answer, rows):
    if answer.get("status") != "ok":
        raise BenchError("%s: %s %s" % (name, answer.get("code"), answer.get("message")))
    if len(answer["rows"]) != rows:
        raise BenchError("%s: %d rows instead of %d" % (name, len(answer["rows"]), rows))


def median_fetches(asked, name, rows, runs):
    """For each (fetcher, sql) the median and the last answer; they take turns, so that both meet the same machine."""
    took, answers = [[] for _ in asked], [None] * len(asked)
    for i in range(runs + 1):
        for which, (fetcher, sql) in enumerate(asked):
            ms, answers[which] = fetcher.fetch(sql)
            check(name, answers[which], rows)
            if i > 0:  # the first warms up
                took[which].append(ms)
    return [(statistics.median(t), answer) for t, answer in zip(took, answers)]


def peak_mb(pid, run):
    """The most memory that the process had during run()."""
    with open("/proc/%d/clear_refs" % pid, "w", encoding="ascii") as f:
        f.write("5")
    run()
    return memory_field(pid, "VmHWM") / 1024


def memory_field(pid, name):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    raise BenchError("/proc/%d/status has no %s" % (pid, name))


def measure_query(query, near, far, far_address, node_pid, idle_mb, runs):
    name, _, sql, rows, _, _ = query
    there = sql.format(r=far_address + "@r")
    asked = [(near, there)] + ([(far, sql.format(r="r"))] if "l." not in sql else [])
    try:
        (ms, answer), *direct = median_fetches(asked, name, rows, runs)
    except BenchError as e:
        if "SQL_ERROR" in str(e) and "yet" in str(e):
            return {"error": "not possible yet"}
        raise
    remote = answer["remote"]
    out = {"ms": ms, "requests": sum(r["requests"] for r in remote), "bytes": sum(r["bytes"] for r in remote)}
    for out["direct_ms"], direct_answer in direct:
        if direct_answer["rows"] != answer["rows"]:
            raise BenchError("%s: another answer than the far cluster's own" % name)
    if name in ("c", "e"):
        out["peak_mb"] = peak_mb(node_pid, lambda: near.fetch(there)) - idle_mb
    return out


def measure_grizzly(bench, runs):
    far = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "far"), bench.args.http_port + 1000, 0)
    near = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "near"), bench.args.http_port + 1310, 0,
                   {"remote": {"nodes": {far.endpoint: {"token_file": far.token_file}}}})
    try:
        far.start()
        near.start()
        fill_far(far)
        fill_near(near)
        pid = near.master()["pid"]
        ask_near, ask_far = Fetcher(near.endpoint, near.token()), Fetcher(far.endpoint, far.token())
        idle_mb = memory_field(pid, "VmRSS") / 1024
        out = {q[0]: measure_query(q, ask_near, ask_far, far.endpoint, pid, idle_mb, runs) for q in QUERIES}
        ask_near.close()
        ask_far.close()
        return out
    finally:
        near.stop()
        far.stop()


# ---- PostgreSQL


def fill(pg, near, far):
    pg.psql(far, "CREATE TABLE r(id integer PRIMARY KEY, name text, amount double precision, grp integer);"
            "INSERT INTO r SELECT n, 'name of row ' || n, n * 0.25, n %% 100 FROM generate_series(1, %d) n;"
            "ANALYZE;" % ROWS)
    pg.psql(near, "CREATE TABLE l1k(id integer PRIMARY KEY, note text, batch integer);"
            "INSERT INTO l1k SELECT n * 100, 'note ' || n, n %% 10 FROM generate_series(1, 1000) n;"
            "CREATE TABLE l100k(id integer PRIMARY KEY, factor double precision);"
            "INSERT INTO l100k SELECT n, n * 0.5 FROM generate_series(1, %d) n;"
            "CREATE EXTENSION postgres_fdw;"
            "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
            "(host '127.0.0.1', port '%d', dbname 'postgres', use_remote_estimate 'true');"
            "CREATE USER MAPPING FOR bench SERVER far OPTIONS (user 'bench');" % (ROWS, far))
    for table, more in (("r_100", ""), ("r_10000", ", fetch_size '10000'")):
        pg.psql(near, "CREATE FOREIGN TABLE %s(id integer NOT NULL, name text, amount double precision, "
                "grp integer) SERVER far OPTIONS (table_name 'r'%s);" % (table, more))
    pg.psql(near, "ANALYZE;")


def measure_postgres(bench, runs):
    near, far = bench.args.http_port + 1620, bench.args.http_port + 1621
    with Postgres() as pg:
        pg.start(near)
        pg.start(far)
        fill(pg, near, far)
        return {name: {table: pg.median(near, sql.format(r=table), runs) for table in ("r_100", "r_10000")}
                for name, _, sql, _, _, _ in QUERIES}


# ---- the table


def text(value, form="%.2f"):
    return "-" if value is None else form % value


def line(*cells):
    widths = (40, 10, 10, 9, 10, 12, 12, 8)
    print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(cells, widths)))
          + "  " + cells[len(widths)], flush=True)


def report(query, ours, pg):
    name, what, _, _, target, is_met = query
    best = min(pg.values()) if pg else None
    slow, fast = (pg["r_100"], pg["r_10000"]) if pg else (None, None)
    title = "(%s) %s" % (name, what)
    if "error" in ours:
        line(title, ours["error"], "", "", "", text(slow), text(fast), "", target)
        return
    ratio = best / ours["ms"] if best is not None else None
    verdict = "met" if is_met(ours["ms"], ours.get("direct_ms"), best, ours["requests"]) else "MISSED"
    if "peak_mb" in ours and ours["peak_mb"] >= MEMORY_MB:
        verdict = "MISSED"
    if best is None and "direct" not in target and name != "a":
        verdict = "needs --postgres"
    line(title, text(ours["ms"]), text(ours.get("direct_ms")), ours["requests"], text(ours.get("peak_mb"), "%.1f"),
         text(slow), text(fast), text(ratio, "%.1fx"), "%s: %s" % (target, verdict))


def federation(bench):
    runs = 3 if bench.args.quick else RUNS
    ours = measure_grizzly(bench, runs)
    pg = measure_postgres(bench, runs) if bench.args.postgres else {}
    print()
    line("tables of another cluster, medians of %d" % runs, "ms", "direct ms", "requests", "peak MB", "pg_fdw ms",
         "pg 10000 ms", "ratio", "target")
    for query in QUERIES:
        report(query, ours[query[0]], pg.get(query[0]))
    bench.results["federation"] = {"grizzly": ours, "postgres_fdw": pg}
