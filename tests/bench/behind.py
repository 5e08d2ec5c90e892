"""A replica that was away: how fast it gets what it lacks, by the log and by a snapshot. Used by bench.py only.

Each measurement has a cluster of its own, because both need settings and a history of their own. The supervisor is stopped
while a replica is to stay dead, or it would be started at once.
"""

import datetime
import json
import os
import re
import shutil
import signal
import statistics
import time

from cluster import BenchError, Client, Cluster

LOG_TIME = re.compile(r"^(\S+Z) ")
SMALL_INSERT = json.dumps({"sql": "INSERT INTO t(name,amount) VALUES(?,?)", "params": ["name", "%s"]}).replace('"%s"',
                                                                                                          "%s.5")


def poll_status(cluster, node, condition, timeout_s):
    """The node's own /status, asked until condition(status); and when that was."""
    deadline = time.monotonic() + timeout_s
    client = Client(node["http"], cluster.token(), 5.0)
    last = None
    while time.monotonic() < deadline:
        try:
            _, body = client.request("GET", "/status")
            last = json.loads(body)
            if condition(last):
                client.close()
                return last, time.monotonic()
        except OSError as e:
            last = str(e)
        time.sleep(0.01)
    raise BenchError("%s did not come so far in %d s: %s" % (node["id"], timeout_s, last))


def away(cluster, node, wipe=False):
    """The supervisor stands still and the replica is dead. Returns a function that lets both go on."""
    os.kill(cluster.supervisor.pid, signal.SIGSTOP)
    os.kill(node["pid"], signal.SIGKILL)
    if wipe:
        shutil.rmtree(os.path.join(cluster.data_dir, node["id"]))
    return lambda: os.kill(cluster.supervisor.pid, signal.SIGCONT)


def catch_up(bench, transactions):
    """Writes with one client while a replica is dead, then lets it catch up; seconds of both."""
    cluster = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "catchup"), bench.args.http_port + 500, 2,
                      {"log": {"keep_bytes": 16 << 30, "max_bytes": 16 << 30}})
    try:
        cluster.start()
        client = cluster.client()
        client.query("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
        node = cluster.replica_nodes()[0]
        come_back = away(cluster, node)
        try:
            written = bench.run_json("load", "--address", cluster.endpoint, "--token-file", cluster.token_file, "--body",
                                     SMALL_INSERT, "--connections", 1, "--requests", transactions, "--duration-ms",
                                     3600 * 1000, "--expect", '"status":"ok"')
            if written["requests"] < 0.99 * transactions:  # a busy machine may time a few out
                raise BenchError("only %d of %d writes: %s" % (written["requests"], transactions, written["first_bad"]))
            client.close()  # idle for so long that the server has closed it
            client = cluster.client()
            answer = client.query("SELECT count(*) FROM t")
            goal, rows = answer["lsn"], answer["rows"]
        finally:
            began = time.monotonic()
            come_back()
        at_start, first_seen = poll_status(cluster, node, lambda s: s["applied_lsn"] > 0, 60)
        _, caught_up = poll_status(cluster, node, lambda s: s["applied_lsn"] >= goal and s["committed_lsn"] >= goal, 600)
        count = Client(node["http"], cluster.token()).query("SELECT count(*) FROM t", consistency="stale")["rows"]
        if count != rows:
            raise BenchError("the replica has %s of %s rows" % (count, rows))
        client.close()
        return {"transactions": written["requests"], "written_s": written["seconds"], "caught_up_s": caught_up - began,
                "process_start_s": first_seen - began, "lsn_at_start": at_start["applied_lsn"], "goal": goal}
    finally:
        cluster.stop()


def log_time(path, text, after=0.0):
    """When (seconds since the epoch) the first line with text that is later than after was logged."""
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            found = LOG_TIME.match(line) if text in line else None
            if found:
                when = datetime.datetime.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S.%fZ").replace(
                    tzinfo=datetime.timezone.utc).timestamp()
                if when >= after:
                    return when
    raise BenchError("%s has no line \"%s\"" % (path, text))


def disk_mb_s(directory, size):
    """How fast this disk takes a file of so many bytes, synced at the end."""
    path = os.path.join(directory, "yardstick")
    block = os.urandom(1 << 20)
    began = time.monotonic()
    with open(path, "wb", buffering=0) as f:
        for _ in range(max(1, size // len(block))):
            f.write(block)
        os.fdatasync(f.fileno())
    took = time.monotonic() - began
    os.unlink(path)
    return size / 1e6 / took


def snapshot(bench, megabytes, rounds):
    """Empties a replica's directory and times the copy it gets, beside a bare NNG stream of as many bytes and this disk."""
    cluster = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "snapshot"), bench.args.http_port + 500, 2,
                      {"store": {"segment_size_bytes": 4 << 20, "checkpoint_bytes": 8 << 20, "keep_bytes": 8 << 20}})
    out = []
    try:
        cluster.start()
        client = cluster.client(120.0)
        client.query("CREATE TABLE big(id INTEGER PRIMARY KEY, data BLOB)")
        for _ in range(megabytes // 4):
            client.query("INSERT INTO big(data) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
                         "WHERE n < 1024) SELECT randomblob(4000) FROM c", timeout_ms=60000)
        cluster.wait_whole(120)
        size = client.query("SELECT 4096 * page_count FROM pragma_page_count")["rows"][0][0]
        client.close()
        poll_status(cluster, cluster.master(), lambda s: s["first_lsn"] > 1, 60)  # or the log would do
        for _ in range(rounds):
            node = cluster.replica_nodes()[0]
            bare = [bench.run_json("nng_stream", "--bytes", size, "--message-bytes", m) for m in (256 << 10, 1 << 20)]
            disk = disk_mb_s(bench.work_dir, size)
            began = time.time() - 0.001  # the log's clock has milliseconds
            away(cluster, node, wipe=True)()
            poll_status(cluster, node, lambda s: s["state"] == "up" and s["ready"], 300)
            cluster.wait_whole(120)
            master_log = os.path.join(cluster.data_dir, "log", cluster.master()["id"] + ".log")
            sent_from = log_time(master_log, "%s is sent a snapshot" % node["id"], began)
            sent_to = log_time(master_log, "walsender %s was sent" % node["id"], sent_from)
            in_place = log_time(os.path.join(cluster.data_dir, "log", node["id"] + ".log"),
                                "ends, to be started again with the snapshot", sent_from)
            out.append({"bytes": size, "moved_s": sent_to - sent_from, "whole_s": in_place - sent_from,
                        "moved_mb_s": size / 1e6 / max(sent_to - sent_from, 0.001),
                        "whole_mb_s": size / 1e6 / max(in_place - sent_from, 0.001),
                        "bare_mb_s": max(b["mb_per_s"] for b in bare), "bare": bare, "disk_mb_s": disk})
            out[-1]["slower_mb_s"] = min(out[-1]["bare_mb_s"], disk)
            out[-1]["ratio"] = out[-1]["moved_mb_s"] / out[-1]["bare_mb_s"]
            out[-1]["whole_ratio"] = out[-1]["whole_mb_s"] / out[-1]["slower_mb_s"]
        return out
    finally:
        cluster.stop()


def middle_of(runs, key):
    return statistics.median(r[key] for r in runs)
