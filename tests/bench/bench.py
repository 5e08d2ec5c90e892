#!/usr/bin/env python3
"""Measures a Grizzly cluster of real processes on this machine, beside yardsticks taken in the same run.

Called by scripts/bench.sh, which builds first. Everything shares the machine: server, yardstick and load generator. So
each figure stands beside what the same machine gave a bare server or a bare disk a moment before or after; the ratio
travels from machine to machine, the absolute figure does not.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import behind  # noqa: E402
import federation  # noqa: E402
import flood  # noqa: E402
import guarded  # noqa: E402
from cluster import BenchError, Client, Cluster, cpu_seconds, memory_kib  # noqa: E402
from postgres import Postgres  # noqa: E402

ROWS = 100000
CONNECTIONS = (1, 16, 64)
POINT_READ = json.dumps({"sql": "SELECT id,name,amount FROM t WHERE id=?", "params": ["%r"]}).replace('"%r"', "%r")
INSERT = json.dumps({"sql": "INSERT INTO w(name,amount) VALUES(?,?)", "params": ["name", "%s"]}).replace('"%s"', "%s.5")
SYNC_BYTES = 8192


class Bench:
    def __init__(self, args):
        self.args = args
        self.programs = os.path.join(args.build_dir, "tests", "bench")
        self.work_dir = tempfile.mkdtemp(prefix="grizzly-bench-", dir=args.work_dir)
        self.cluster = Cluster(args.build_dir, os.path.join(self.work_dir, "cluster"), args.http_port, 2)
        self.duration_ms = 1000 if args.quick else 3000
        self.rounds = 1 if args.quick else 3
        self.results = {}
        self.sequence = 1

    # -- programs of this folder

    def program(self, name):
        path = os.path.join(self.programs, name)
        if not os.access(path, os.X_OK):
            raise BenchError("%s is not built" % path)
        return path

    def run_json(self, name, *arguments):
        done = subprocess.run([self.program(name), *map(str, arguments)], capture_output=True, check=False)
        if done.returncode != 0:
            raise BenchError("%s: exit %d: %s" % (name, done.returncode, done.stderr.decode()))
        return json.loads(done.stdout)

    def load(self, address, body, connections, *more, duration_ms=None, checked=True, token_file=None):
        result = self.run_json("load", "--address", address, "--token-file", token_file or self.cluster.token_file,
                               "--body", body,
                               "--connections", connections, "--duration-ms", duration_ms or self.duration_ms,
                               "--sequence", self.sequence, "--ids", ROWS, "--expect", '"status":"ok"', *more)
        self.sequence = result["next_sequence"]
        bad = result["bad_status"] + result["unexpected"] + result["broken"] + result["refused"]
        if checked and bad > 0:
            raise BenchError("%d requests went wrong, the first: %s" % (bad, result["first_bad"]))
        return result

    def loaded(self, address, body, connections, **more):
        """load() plus the CPU that each process of the cluster spent on a request."""
        pids = self.cluster.pids()
        before = cpu_seconds(pids)
        result = self.load(address, body, connections, **more)
        after = cpu_seconds(pids)
        result["cpu_us_per_request"] = {
            name: round((after[name] - before[name]) * 1e6 / max(result["sent"], 1), 1) for name in pids}
        return result

    def sync_rate(self, kind="written", size=SYNC_BYTES):
        return self.run_json("sync_rate", "--file", os.path.join(self.work_dir, "sync"), "--kind", kind, "--bytes",
                             size, "--duration-ms", 500 if self.args.quick else 1000)

    # -- output

    def line(self, *cells):
        widths = (44, 12, 12, 8, 9, 9)
        print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(cells, widths)))
              + ("  " + cells[6] if len(cells) > 6 else ""), flush=True)

    def heading(self, title, yardstick="yardstick"):
        print()
        self.line(title, "measured", yardstick, "ratio", "p50 ms", "p99 ms")

    @staticmethod
    def ms(us):
        return "%.2f" % (us / 1000)

    # -- the measurements

    def fill(self):
        self.fill_tables(self.cluster)

    @staticmethod
    def fill_tables(cluster):
        client = cluster.client()
        client.query("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
        client.query("CREATE TABLE IF NOT EXISTS w(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
        client.query("INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) "
                     "SELECT n, 'name of row ' || n, n * 0.25 FROM c" % ROWS)
        client.close()
        cluster.wait_whole()

    def worker_threads(self):
        """HTTP workers of a node: the yardstick gets as many threads."""
        return self.args.workers

    def reads(self):
        client = self.cluster.client()
        client.request("POST", "/query", b"{}")  # connects
        _, body = client.request("POST", "/query", POINT_READ.replace("%r", "77777").encode())
        client.close()
        bare = subprocess.Popen([self.program("bare_evhttp"), "--threads", str(self.worker_threads()), "--size",
                                 str(max(len(body), 24))], stdout=subprocess.PIPE)
        out = []
        try:
            bare_address = "127.0.0.1:%d" % int(bare.stdout.readline())
            self.heading("point SELECT by key through POST /query", "bare evhttp")
            for connections in CONNECTIONS:
                ours, theirs = [], []
                for _ in range(self.rounds):
                    cpu = cpu_seconds({"bare": bare.pid})["bare"]
                    theirs.append(self.load(bare_address, POINT_READ, connections))
                    cpu = cpu_seconds({"bare": bare.pid})["bare"] - cpu
                    theirs[-1]["cpu_us_per_request"] = round(cpu * 1e6 / theirs[-1]["sent"], 1)
                    ours.append(self.loaded(self.cluster.endpoint, POINT_READ, connections))
                mine, bare_run = middle(ours), middle(theirs)
                ratio = median_ratio(ours, theirs)
                cpu = mine["cpu_us_per_request"][self.cluster.master()["id"]]
                self.line("%d connections" % connections, "%.0f/s" % mine["rate"], "%.0f/s" % bare_run["rate"],
                          "%.2f" % ratio, self.ms(mine["p50_us"]), self.ms(mine["p99_us"]),
                          "server CPU/request %.1f us, bare %.1f us" % (cpu, bare_run["cpu_us_per_request"]))
                out.append({"connections": connections, "ours": mine, "bare": bare_run, "ratio": ratio})
        finally:
            bare.kill()
            bare.wait()
        self.results["reads"] = out

    def writes(self):
        out = []
        self.heading("durable INSERT, 3 nodes, quorum", "fdatasync")
        for connections in CONNECTIONS:
            ours, disk = [], []
            for _ in range(self.rounds):
                disk.append(self.sync_rate())
                ours.append(self.loaded(self.cluster.endpoint, INSERT, connections))
            mine, theirs = middle(ours), middle(disk)
            ratio = median_ratio(ours, disk)
            self.line("%d connections" % connections, "%.0f/s" % mine["rate"], "%.0f/s" % theirs["rate"],
                      "%.2f" % ratio, self.ms(mine["p50_us"]), self.ms(mine["p99_us"]),
                      "fdatasync p50 %s ms; CPU/write us: %s" % (
                          self.ms(theirs["p50_us"]),
                          " ".join("%s %.0f" % kv for kv in mine["cpu_us_per_request"].items())))
            out.append({"connections": connections, "ours": mine, "sync": theirs, "ratio": ratio})
        self.results["writes"] = out
        self.one_at_a_time()
        if self.args.postgres:
            self.beside_postgres()

    def one_at_a_time(self):
        """One client, whose every write waits for the one before: how far that is from the bare parts of it."""
        ours, bare = [], []
        for _ in range(max(self.rounds, 3)):
            bare.append(self.run_json("bare_commit", "--dir", self.work_dir, "--bytes", SYNC_BYTES, "--duration-ms",
                                      self.duration_ms))
            ours.append(self.loaded(self.cluster.endpoint, INSERT, 1))
        mine, theirs = middle(ours), middle(bare)
        ratio = median_ratio(ours, bare)
        self.heading("durable INSERT, 3 nodes, quorum", "bare parts")
        self.line("1 connection", "%.0f/s" % mine["rate"], "%.0f/s" % theirs["rate"], "%.2f" % ratio,
                  self.ms(mine["p50_us"]), self.ms(mine["p99_us"]),
                  "bare: NNG to two processes, three fdatasync, p50 %s ms" % self.ms(theirs["p50_us"]))
        self.results["one-at-a-time"] = {"ours": mine, "bare": theirs, "ratio": ratio}

    def beside_postgres(self):
        """The same writes by a server of PostgreSQL with two standbys, of which one has to have each on its disk."""
        out, seconds = [], max(self.duration_ms // 1000, 1)
        with Postgres() as pg:
            port = self.args.http_port + 1620
            pg.replicate(port)
            pg.psql(port, "CREATE TABLE w(id serial PRIMARY KEY, name text, amount double precision);")
            script = os.path.join(pg.directory, "insert.sql")
            with open(script, "w", encoding="utf-8") as f:
                f.write("INSERT INTO w(name, amount) VALUES ('a name', 1.5);\n")
            os.chmod(script, 0o644)
            self.heading("durable INSERT, 3 nodes, quorum", "PostgreSQL")
            for connections in CONNECTIONS:
                ours, theirs = [], []
                for _ in range(max(self.rounds, 3)):
                    theirs.append(pg.pgbench(port, script, connections, seconds))
                    ours.append(self.loaded(self.cluster.endpoint, INSERT, connections))
                mine, its, ratio = middle(ours), middle(theirs), median_ratio(ours, theirs)
                self.line("%d connections" % connections, "%.0f/s" % mine["rate"], "%.0f/s" % its["rate"],
                          "%.2f" % ratio, self.ms(mine["p50_us"]), self.ms(mine["p99_us"]),
                          "PostgreSQL 15, 2 standbys, ANY 1: p50 %s, p99 %s ms" % (
                              self.ms(its["p50_us"]), self.ms(its["p99_us"])))
                out.append({"connections": connections, "ours": mine, "postgres": its, "ratio": ratio})
        self.results["beside-postgres"] = out

    def pipeline(self):
        """Executing the next commit while the last one is on its way, against one after the other."""
        statement = {"sql": "INSERT INTO w(name,amount) VALUES(?,?)", "params": ["a name", "%s"]}
        larger = json.dumps({"statements": [statement] * 100}).replace('"%s"', "%s.5")
        clusters, out = {}, []
        try:
            for depth in (0, 1, 2):
                clusters[depth] = Cluster(self.args.build_dir, os.path.join(self.work_dir, "depth%d" % depth),
                                          self.args.http_port + 1000 * (depth + 1), 2,
                                          {"commit_pipeline_depth": depth})
                clusters[depth].start()
                clusters[depth].client().query("CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
            self.heading("pipelined commit, requests", "one by one")
            for name, body, connections in (("1 row", INSERT, 16), ("1 row", INSERT, 64), ("100 rows", larger, 2),
                                            ("100 rows", larger, 8)):
                runs = {depth: [] for depth in clusters}
                for _ in range(max(self.rounds, 3)):
                    for depth, cluster in clusters.items():
                        runs[depth].append(self.run_json(
                            "load", "--address", cluster.endpoint, "--token-file", cluster.token_file, "--body", body,
                            "--connections", connections, "--duration-ms", self.duration_ms, "--expect",
                            '"status":"ok"'))
                for depth in (1, 2):
                    mine, theirs = middle(runs[depth]), middle(runs[0])
                    ratio = median_ratio(runs[depth], runs[0])
                    self.line("%s, %d connections, depth %d" % (name, connections, depth), "%.0f/s" % mine["rate"],
                              "%.0f/s" % theirs["rate"], "%.2f" % ratio, self.ms(mine["p50_us"]),
                              self.ms(mine["p99_us"]), "one by one: p50 %s, p99 %s ms" % (
                                  self.ms(theirs["p50_us"]), self.ms(theirs["p99_us"])))
                    out.append({"request": name, "connections": connections, "depth": depth, "pipelined": mine,
                                "one_by_one": theirs, "ratio": ratio})
        finally:
            for cluster in clusters.values():
                cluster.stop()
        self.results["pipeline"] = out

    def add_replica(self):
        """Writes on a large database before, while and after a replica is added, which is sent all of it."""
        size_mb = 64 if self.args.quick else 1024
        slice_ms = 500 if self.args.quick else 1000
        # So little log is kept that the new node needs a snapshot, as any does that joins an old cluster.
        cluster = Cluster(self.args.build_dir, os.path.join(self.work_dir, "add"), self.args.http_port + 5000, 2,
                          {"store": {"keep_bytes": 16 << 20}})
        try:
            cluster.start()
            client = cluster.client()
            client.query("CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
            client.query("CREATE TABLE ballast(id INTEGER PRIMARY KEY, bytes BLOB)")
            for _ in range(size_mb // 8):
                client.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2048) "
                             "INSERT INTO ballast(bytes) SELECT randomblob(4000) FROM n")
            cluster.wait_whole(300)

            def one_slice():
                return self.run_json("load", "--address", cluster.endpoint, "--token-file", cluster.token_file,
                                     "--body", INSERT, "--connections", 16, "--duration-ms", slice_ms, "--warmup-ms",
                                     0, "--expect", '"status":"ok"')

            one_slice()
            before = [one_slice() for _ in range(6)]
            adding = subprocess.Popen(
                [cluster.supervisor_path, "add-replica", "127.0.0.1:%d" % (cluster.http_port + 4), "--data-dir",
                 cluster.data_dir], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            began = time.monotonic()
            during = []
            took = None
            while took is None:
                run = one_slice()
                if adding.poll() is None or not during:
                    during.append(run)
                if adding.poll() is not None:
                    took = time.monotonic() - began
                elif time.monotonic() - began > 600:
                    raise BenchError("the replica did not catch up within 600 s")
            said = adding.communicate()[0].decode().strip()
            if adding.returncode != 0:
                raise BenchError("add-replica: exit %d: %s" % (adding.returncode, said))
            cluster.replicas += 1
            cluster.wait_whole()
            after = [one_slice() for _ in range(6)]
        finally:
            cluster.stop()
        rates = {name: statistics.median(r["rate"] for r in runs)
                 for name, runs in (("before", before), ("during", during), ("after", after))}
        self.heading("a replica joins a database of %d MB" % size_mb, "writes before")
        for name, runs in (("while it catches up", during), ("as one of four", after)):
            rate = statistics.median(r["rate"] for r in runs)
            self.line("writes %s" % name, "%.0f/s" % rate, "%.0f/s" % rates["before"], "%.2f" % (
                rate / rates["before"]), self.ms(statistics.median(r["p50_us"] for r in runs)),
                      self.ms(max(r["p99_us"] for r in runs)), "%d slices of %d ms" % (len(runs), slice_ms))
        print("it votes after %.1f s; target: at least 0.80 while it catches up" % took)
        self.results["add-replica"] = {"size_mb": size_mb, "seconds": took, "rates": rates, "before": before,
                                       "during": during, "after": after,
                                       "ratio": rates["during"] / rates["before"]}

    def bulk(self):
        statement = {"sql": "INSERT INTO w(name,amount) VALUES(?,?)", "params": ["a name", "%s"]}
        body = json.dumps({"statements": [statement] * 1000}).replace('"%s"', "%s.5")
        path = os.path.join(self.work_dir, "bulk.json")
        with open(path, "w", encoding="ascii") as f:
            f.write(body)
        in_process = self.run_json("sqlite_inproc", os.path.join(self.work_dir, "sqlite.db"), 500)
        self.heading("1000 inserts in one request", "SQLite alone")
        out = []
        for connections in (1, 4):
            runs = []
            for _ in range(self.rounds):
                result = self.run_json("load", "--address", self.cluster.endpoint, "--token-file",
                                       self.cluster.token_file, "--body-file", path, "--connections", connections,
                                       "--duration-ms", self.duration_ms, "--sequence", self.sequence, "--expect",
                                       '"status":"ok"')
                self.sequence = result["next_sequence"]
                if result["bad_status"] + result["unexpected"] + result["broken"] > 0:
                    raise BenchError("bulk: " + result["first_bad"])
                runs.append(result)
            mine = middle(runs)
            rows = mine["rate"] * 1000
            ratio = rows / in_process["rows_per_s_1000"]
            self.line("%d connections, rows" % connections, "%.0f/s" % rows,
                      "%.0f/s" % in_process["rows_per_s_1000"], "%.2f" % ratio, self.ms(mine["p50_us"]),
                      self.ms(mine["p99_us"]))
            out.append({"connections": connections, "rows_per_s": rows, "ours": mine, "ratio": ratio})
        self.results["bulk"] = {"runs": out, "sqlite": in_process}

    def lag(self):
        replica = self.cluster.replica_nodes()[0]
        out = {}
        client = self.cluster.client()
        client.query("CREATE TABLE IF NOT EXISTS lag(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
        first = client.query("SELECT coalesce(max(id), 0) + 1 FROM lag")["rows"][0][0]
        client.close()
        self.heading("replication lag: master's answer to replica's", "round trip")
        for name, connections in (("idle", 0), ("under 16 writing connections", 16)):
            background = None
            if connections:
                background = subprocess.Popen(
                    [self.program("load"), "--address", self.cluster.endpoint, "--token-file", self.cluster.token_file,
                     "--body", INSERT, "--connections", str(connections), "--duration-ms",
                     str(self.duration_ms + 1000), "--warmup-ms", "300"], stdout=subprocess.DEVNULL)
                time.sleep(0.3)
            try:
                result = self.run_json("lag", "--master", self.cluster.endpoint, "--replica", replica["http"],
                                       "--token-file", self.cluster.token_file, "--table", "lag", "--id", first,
                                       "--duration-ms", self.duration_ms)
            finally:
                if background is not None:
                    background.wait()
            first = result["next_id"]
            self.line(name + ", p50", self.ms(result["lag_p50_us"]), self.ms(result["round_trip_p50_us"]),
                      "%.2f" % (result["lag_p50_us"] / max(result["round_trip_p50_us"], 1)),
                      self.ms(result["lag_p50_us"]), self.ms(result["lag_p99_us"]),
                      "figures in ms; the yardstick is the same read asked again")
            out[name] = result
        self.results["lag"] = out

    def failover(self):
        out = {}
        self.heading("failover: signal to next acknowledged write", "")
        times = 3 if self.args.quick else 10
        for name, number in (("kill -9", signal.SIGKILL), ("SIGSTOP", signal.SIGSTOP)):
            out[name] = self.break_master(number, times if number == signal.SIGKILL else max(times // 2, 2))
            r = out[name]
            self.line("%s of the master, %d times" % (name, len(r["ms"])), "%.0f ms" % r["median_ms"], "", "", "", "",
                      "worst %.0f ms, refused %d, failed %d, lost %d" % (r["worst_ms"], r["refused"], r["failed"],
                                                                           r["lost"]))
        out["switchover"] = r = self.switchover(max(times // 2, 2))
        self.line("switchover, %d times: longest wait" % len(r["ms"]), "%.0f ms" % r["median_ms"], "", "", "", "",
                  "worst %.0f ms, refused %d, failed %d, lost %d" % (r["worst_ms"], r["refused"], r["failed"],
                                                                       r["lost"]))
        self.results["failover"] = out

    def break_master(self, number, times):
        writer = Writer(self.cluster)
        took = []
        try:
            for _ in range(times):
                self.cluster.wait_whole()
                time.sleep(0.3)
                old = self.cluster.master()
                at = time.monotonic()
                os.kill(old["pid"], number)
                took.append((writer.wait_other(old["id"], at, 60) - at) * 1000)
        finally:
            writer.stop()
        return writer.summary(took)

    def switchover(self, times):
        writer = Writer(self.cluster)
        took = []
        try:
            for _ in range(times):
                self.cluster.wait_whole()
                time.sleep(0.3)
                writer.longest_s = 0.0
                done = subprocess.run([self.cluster.supervisor_path, "switchover", "--data-dir",
                                       self.cluster.data_dir], capture_output=True, check=False, timeout=60)
                if done.returncode != 0:
                    raise BenchError("switchover: exit %d: %s" % (done.returncode, done.stderr.decode()))
                time.sleep(0.3)
                took.append(writer.longest_s * 1000)
        finally:
            writer.stop()
        return writer.summary(took)

    def memory(self):
        out = {}
        self.heading("memory", "")
        for state in ("idle", "loaded"):
            if state == "loaded":
                self.load(self.cluster.endpoint, INSERT, 64, duration_ms=self.duration_ms)
                self.load(self.cluster.endpoint, POINT_READ, 64, duration_ms=self.duration_ms)
            out[state] = {name: dict(zip(("rss_kib", "pss_kib"), memory_kib(pid)))
                          for name, pid in self.cluster.pids().items()}
            for name, m in out[state].items():
                self.line("%s, %s" % (name, state), "%.1f MB" % (m["rss_kib"] / 1024), "", "", "", "",
                          "PSS %.1f MB" % (m["pss_kib"] / 1024))
        self.results["memory"] = out

    def restart(self):
        megabytes = 64 if self.args.quick else 1024
        client = self.cluster.client(120.0)
        client.query("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, data BLOB)")
        began = time.monotonic()
        for _ in range(megabytes // 4):
            client.query("INSERT INTO big(data) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
                         "WHERE n < 1024) SELECT randomblob(4000) FROM c", timeout_ms=60000)
        filled_s = time.monotonic() - began
        self.cluster.wait_whole(120)
        self.heading("restart on %d MB more of data" % megabytes, "")
        took = []
        for _ in range(1 if self.args.quick else 3):
            self.cluster.wait_whole(120)
            node = self.cluster.replica_nodes()[0]
            at = time.monotonic()
            os.kill(node["pid"], signal.SIGKILL)
            took.append((self.wait_ready(node, at + 120) - at) * 1000)
        lines = log_tail(self.cluster.data_dir, node["id"])
        self.line("kill -9 of a replica to ready", "%.0f ms" % statistics.median(took), "", "", "", "",
                  "worst %.0f ms; filled at %.0f MB/s" % (max(took), megabytes / filled_s))
        for line in lines:
            print("    " + line)
        client.close()
        self.results["restart"] = {"ms": took, "megabytes": megabytes, "fill_seconds": filled_s, "log": lines}

    def wait_ready(self, node, deadline):
        """The moment at which a new process of the node answers /ready with 200."""
        while time.monotonic() < deadline:
            client = Client(node["http"], self.cluster.token(), 5.0)
            try:
                status, _ = client.request("GET", "/ready")
                if status == 200:
                    return time.monotonic()
            except OSError:
                pass
            finally:
                client.close()
            time.sleep(0.002)
        raise BenchError("%s was not ready in time" % node["id"])

    def disk(self):
        self.heading("fdatasync of this disk", "")
        out = []
        for kind in ("written", "fallocated", "growing"):
            for size in (4096, 12288):
                r = self.sync_rate(kind, size)
                self.line("%d KiB, %s" % (size // 1024, kind), "%.0f/s" % r["rate"], "", "", self.ms(r["p50_us"]),
                          self.ms(r["p99_us"]))
                out.append(r)
        self.results["disk"] = out

    def store(self):
        duration = 500 if self.args.quick else 1500
        ours = self.run_json("store_bench", os.path.join(self.work_dir, "store"), duration)
        theirs = self.run_json("sqlite_inproc", os.path.join(self.work_dir, "sqlite.db"), duration)
        self.heading("the store in process, one thread", "SQLite WAL")
        for name, key, other in (("point SELECTs, pages in the log", "selects_per_s_log", "selects_per_s"),
                                 ("point SELECTs, between writes", "selects_per_s_mixed", "selects_per_s"),
                                 ("point SELECTs, pages in the base file", "selects_per_s_base", "selects_per_s"),
                                 ("durable single-row commits", "single_row_commits_per_s", "single_row_commits_per_s"),
                                 ("rows, 64 a durable commit", "rows_per_s_64", "rows_per_s_64"),
                                 ("rows, 64 a sealed record, no sync", "sealed_rows_per_s_64", "rows_per_s_64"),
                                 ("rows, 1000 a durable commit", "rows_per_s_1000", "rows_per_s_1000")):
            self.line(name, "%.0f/s" % ours[key], "%.0f/s" % theirs[other], "%.2f" % (ours[key] / theirs[other]))
        self.results["store"] = {"ours": ours, "sqlite": theirs}

    def catchup(self):
        """At least 10 times as fast as they were written is what operations rely on."""
        r = behind.catch_up(self, 20000 if self.args.quick else 200000)
        ratio = r["written_s"] / r["caught_up_s"]
        self.heading("a replica catches up by the log", "one client")
        self.line("%d small transactions" % r["transactions"], "%.2f s" % r["caught_up_s"], "%.1f s" % r["written_s"],
                  "%.1f" % ratio, "", "", "%.0f/s, %.0f/s written; %.2f s of it starting the process" % (
                      r["transactions"] / r["caught_up_s"], r["transactions"] / r["written_s"], r["process_start_s"]))
        self.results["catchup"] = dict(r, ratio=ratio)

    def snapshot(self):
        runs = behind.snapshot(self, 64 if self.args.quick else 512, 1 if self.args.quick else 3)
        self.heading("a snapshot of %.0f MB moves to a replica" % (runs[0]["bytes"] / 1e6), "bare NNG")
        for name, rate, bare, ratio, what in (
                ("until all is sent", "moved_mb_s", "bare_mb_s", "ratio", ""),
                ("until it is synced and in place", "whole_mb_s", "slower_mb_s", "whole_ratio",
                 "the yardstick is the slower of NNG and this disk: %.0f MB/s" % behind.middle_of(runs, "disk_mb_s"))):
            self.line(name, "%.0f MB/s" % behind.middle_of(runs, rate), "%.0f MB/s" % behind.middle_of(runs, bare),
                      "%.2f" % behind.middle_of(runs, ratio), "", "", what)
        self.results["snapshot"] = runs

    def federation(self):
        federation.federation(self)

    def flood(self):
        flood.flood(self, {"point SELECT": POINT_READ, "durable INSERT": INSERT})

    def guarded(self):
        guarded.guarded(self)

    # -- all of it

    STANDALONE = ("disk", "store", "pipeline", "catchup", "snapshot", "add-replica", "federation", "flood",
                  "guarded")
    CLUSTERED = ("memory", "reads", "writes", "bulk", "lag", "failover", "restart")

    def run(self):
        wanted = self.args.only or list(self.STANDALONE + self.CLUSTERED)
        failed = []
        try:
            for name in wanted:
                if name in self.STANDALONE:
                    self.run_one(name, failed)
            if any(name in self.CLUSTERED for name in wanted):
                self.cluster.start()
                print("\ncluster of 3: %.2f s from the start to the first write" % self.cluster.start_seconds)
                self.results["start_seconds"] = self.cluster.start_seconds
                if "memory" in wanted:
                    empty = {name: memory_kib(pid)[0] / 1024 for name, pid in self.cluster.pids().items()}
                    print("memory, empty: " + ", ".join("%s %.1f MB" % kv for kv in empty.items()))
                    self.results["memory_empty_mb"] = empty
                self.fill()
                for name in self.CLUSTERED:
                    if name in wanted:
                        self.run_one(name, failed)
                    if self.cluster.supervisor.poll() is not None:
                        print("\nthe supervisor ended with %d; see --keep and its log" % self.cluster.supervisor.returncode)
                        failed.append("cluster")
                        break
        finally:
            self.cluster.stop()
            if self.args.keep:
                print("\nkept: " + self.work_dir)
            else:
                shutil.rmtree(self.work_dir, ignore_errors=True)
        return failed

    def run_one(self, name, failed):
        try:
            getattr(self, name.replace("-", "_"))()
        except (BenchError, OSError, subprocess.TimeoutExpired) as e:
            print("\n%s: FAILED: %s" % (name, e), flush=True)
            self.results[name] = {"error": str(e)}
            failed.append(name)


class Writer:
    """One client that writes row after row on the endpoint and tries again at once whatever happens."""

    def __init__(self, cluster):
        self.cluster = cluster
        client = cluster.client()
        client.query("CREATE TABLE IF NOT EXISTS f(id INTEGER PRIMARY KEY)")
        self.id = client.query("SELECT coalesce(max(id), 0) + 1 FROM f")["rows"][0][0]
        client.close()
        self.acked = []
        self.refused = self.broken = self.failed = 0
        self.failures = []
        self.longest_s = 0.0
        self.seen = threading.Condition()
        self.last = ("", 0.0)  # node that answered, when
        self.stopping = False
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self):
        client = self.cluster.client(60.0)
        waiting_since = time.monotonic()
        while not self.stopping:
            self.id += 1
            try:
                answer = client.query("INSERT INTO f(id) VALUES(?)", [self.id])
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(0.001)
                continue
            except OSError:
                self.broken += 1
                continue
            except BenchError as e:
                self.failed += 1
                self.failures.append(str(e))
                continue
            now = time.monotonic()
            self.acked.append(self.id)
            with self.seen:
                self.longest_s = max(self.longest_s, now - waiting_since)
                self.last = (answer["node"], now)
                self.seen.notify_all()
            waiting_since = now
        client.close()

    def wait_other(self, old, since, timeout_s):
        """When the first write was acknowledged by another node than old."""
        with self.seen:
            if not self.seen.wait_for(lambda: self.last[0] != old and self.last[1] > since, timeout_s):
                raise BenchError("no node but %s acknowledged a write within %d s; failures: %s" % (
                    old, timeout_s, self.failures[-3:]))
            return self.last[1]

    def stop(self):
        self.stopping = True
        self.thread.join()

    def summary(self, took):
        client = self.cluster.client()
        there = {row[0] for row in client.query("SELECT id FROM f")["rows"]}
        client.close()
        return {"ms": took, "median_ms": statistics.median(took), "worst_ms": max(took), "refused": self.refused,
                "broken": self.broken, "failed": self.failed, "failures": self.failures[:5],
                "acknowledged": len(self.acked), "lost": sum(1 for i in self.acked if i not in there)}


def middle(runs):
    return sorted(runs, key=lambda r: r["rate"])[len(runs) // 2]


def median_ratio(ours, theirs):
    """Of neighbours in time: what slows the whole machine for a while slows both."""
    return statistics.median(a["rate"] / b["rate"] for a, b in zip(ours, theirs))


def log_tail(data_dir, node):
    """The node's last lines about opening and recovering."""
    path = os.path.join(data_dir, "log", node + ".log")
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = [line.rstrip() for line in f]
    except OSError:
        return []
    return [line for line in lines if "recover" in line or "opened" in line or "ready" in line][-3:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build-dir", required=True)
    parser.add_argument("--quick", action="store_true", help="short runs: a smoke test, not a measurement")
    parser.add_argument("--only", action="append", choices=Bench.STANDALONE + Bench.CLUSTERED)
    parser.add_argument("--postgres", action="store_true", help="writes, federation: compare with PostgreSQL")
    parser.add_argument("--json", metavar="FILE", help="write everything measured there")
    parser.add_argument("--http-port", type=int, default=18480)
    parser.add_argument("--workers", type=int, default=2, help="threads of the bare evhttp server")
    parser.add_argument("--work-dir", help="where databases are written; must be on the disk to be measured")
    parser.add_argument("--keep", action="store_true", help="keep the databases and logs")
    bench = Bench(parser.parse_args())
    print("%s, %d CPUs, load average %.1f" % (os.uname().release, os.cpu_count(), os.getloadavg()[0]))
    failed = bench.run()
    if bench.args.json:
        with open(bench.args.json, "w", encoding="utf-8") as f:
            json.dump(bench.results, f, indent=1)
    if failed:
        print("\nfailed: " + ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
