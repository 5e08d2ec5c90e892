"""/metrics as Prometheus reads it, the rules and the dashboard that are installed, slow queries, what JSON lines hold."""
import json
import os
import re
import shutil
import subprocess

from harness import scenario

SHARED = {"replicas": 2}


def promtool(ctx):
    found = shutil.which("promtool")
    if found is None:
        ctx.skip("promtool is not installed (Debian package: prometheus)")
    return found


def metrics(c, node=None):
    """{name: {labels as text: value}} of a node, or of the endpoint."""
    found = {}
    for line in c.client(node).request("GET", "/metrics").text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            found.setdefault(name, {})[labels or ""] = float(value)
    return found


def stage(found, kind, name):
    """Observations and their sum."""
    wanted = 'kind="%s",stage="%s"' % (kind, name)
    counts = [v for k, v in found.get("grizzly_request_stage_seconds_count", {}).items() if k.endswith(wanted)]
    sums = [v for k, v in found.get("grizzly_request_stage_seconds_sum", {}).items() if k.endswith(wanted)]
    return (counts[0], sums[0]) if counts else (0, 0.0)


@scenario(shared=True)
def promtool_has_nothing_to_say(c):
    tool = promtool(c.ctx)
    c.ok(statements=[{"sql": "CREATE TABLE IF NOT EXISTS p(a)"}, {"sql": "INSERT INTO p VALUES(1)"}])
    c.ok("SELECT * FROM p")
    for node in ("node1", "node2", "node3"):
        text = c.client(node).request("GET", "/metrics").text
        done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr.strip(), "%s: %s" % (node, done.stdout + done.stderr)


@scenario(start=False, quick=False)
def rules_are_right_and_alert_when_they_should(ctx):
    tool = promtool(ctx)
    folder = os.path.join(ctx.source_dir, "packaging", "monitoring")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([tool, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@scenario(shared=True)
def rules_and_dashboard_ask_for_what_there_is(c):
    c.ok("CREATE TABLE IF NOT EXISTS p(a)")
    c.ok("SELECT 1")
    c.wait(lambda: "grizzly_supervisor_has_master" in metrics(c), 10, "the supervisor's figures")
    known = set()
    for node in ("node1", "node2", "node3"):
        known |= set(metrics(c, node))
    folder = os.path.join(c.ctx.source_dir, "packaging", "monitoring")
    with open(os.path.join(folder, "dashboard.json")) as f:
        board = json.load(f)
    asked = [t["expr"] for p in board["panels"] for t in p["targets"]]
    with open(os.path.join(folder, "alerts.yml")) as f:
        asked.append(f.read())
    names = set(re.findall(r"\bgrizzly_\w+", " ".join(asked)))
    assert len(names) > 20, names
    assert names <= known, "nobody shows %s" % sorted(names - known)
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids) > 15


@scenario(replicas=2)
def stages_of_reads_and_writes_are_counted(c):
    c.ok("CREATE TABLE t(a)")
    before = metrics(c)
    for i in range(10):
        c.ok("INSERT INTO t VALUES(%d)" % i)
        c.ok("SELECT count(*) FROM t")
    after = metrics(c)
    for kind, stages in (("read", ("parse", "execute", "whole")),
                         ("write", ("parse", "wait", "execute", "quorum", "whole"))):
        for name in stages:
            count = stage(after, kind, name)[0] - stage(before, kind, name)[0]
            assert count == 10, "%s/%s was counted %d times" % (kind, name, count)
        total = stage(after, kind, "whole")[1] - stage(before, kind, "whole")[1]
        parts = sum(stage(after, kind, s)[1] - stage(before, kind, s)[1] for s in stages if s != "whole")
        assert 0 < parts <= total * 1.01 + 1e-4, (kind, parts, total)
    assert stage(after, "write", "sync")[0] - stage(before, "write", "sync")[0] >= 10
    batches = after["grizzly_write_batch_size_requests_sum"], before["grizzly_write_batch_size_requests_sum"]
    assert sum(batches[0].values()) - sum(batches[1].values()) == 10, batches
    replica = c.replicas()[0]
    assert stage(metrics(c, replica), "write", "sync")[0] >= 10, "a replica syncs, too"
    c.query("SELECT count(*) FROM t", node=replica).must()
    assert stage(metrics(c, replica), "forwarded", "whole")[0] == 1
    # Buckets grow, and the last one has all.
    buckets = [v for k, v in after["grizzly_request_stage_seconds_bucket"].items() if 'kind="read",stage="whole"' in k]
    assert buckets == sorted(buckets) and buckets[-1] == stage(after, "read", "whole")[0], buckets


@scenario(replicas=2)
def failovers_and_roles_are_told(c):
    old = c.master()
    for labels in metrics(c, old)["grizzly_is_master"]:
        assert labels == 'node="%s",role="master"' % old, labels

    def told(name, labels=""):
        return metrics(c)[name].get(labels, 0)
    c.wait(lambda: told("grizzly_supervisor_has_master") == 1, 10, "the supervisor's figures")
    assert told("grizzly_supervisor_failovers_total") == 0
    c.kill(old)
    c.wait_ready()
    c.wait(lambda: told("grizzly_supervisor_failovers_total") == 1, 10, "the failover to be shown")
    c.wait_all_up()
    c.wait(lambda: told("grizzly_supervisor_outage_seconds_count", 'cause="failover"') == 1, 10, "the outage")
    assert 0 < told("grizzly_supervisor_outage_seconds_sum", 'cause="failover"') < 20 * c.ctx.slow
    c.wait(lambda: told("grizzly_supervisor_node_restarts_total", 'member="%s"' % old) == 1, 10, "the restart")
    c.wait(lambda: told("grizzly_supervisor_events_total", 'event="master-lost"') == 1, 10, "the event")
    new = c.master()
    assert new != old and list(metrics(c, new)["grizzly_is_master"].values()) == [1]
    lags = metrics(c, new)["grizzly_replica_lag_records"]
    assert len(lags) == 2 and all('role="master"' in k for k in lags), lags
    assert c.command("switchover", "--to", old).returncode == 0
    c.wait(lambda: told("grizzly_supervisor_outage_seconds_count", 'cause="switchover"') == 1, 10, "the switchover")
    assert told("grizzly_supervisor_outage_seconds_count", 'cause="failover"') == 1


def log_lines(c, node):
    with open(os.path.join(c.data_dir, "log", node + ".log")) as f:
        return f.read().splitlines()


@scenario(replicas=0, settings={"logging": {"slow_query_ms": 1, "format": "json"}})
def slow_queries_are_logged_without_values(c):
    c.ok(statements=[{"sql": "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"}, {"sql": "CREATE INDEX i ON t(b)"}])
    c.ok("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 300000) /* a\n remark */ "
         "SELECT count(*), 'hidden \"value\"', x'c0ffee', -12345.5 FROM c, t WHERE t.b = 'hidden' OR t.b = ?",
         ["hidden parameter"])
    c.ok("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 50000) "
         "INSERT INTO t(b) SELECT 'hidden' || x FROM c")

    def slow():
        lines = [json.loads(s) for s in log_lines(c, "node1") if '"slow query"' in s]
        return {line["kind"]: line for line in lines if "RECURSIVE" in line["sql"]}
    lines = c.wait(lambda: len(slow()) == 2 and slow(), 10, "both to be logged")
    read, write = lines["slow_read"], lines["write"]
    assert float(read["ms"]) > 1 and read["level"] == "warn" and read["process"] == "node1", read
    assert "SELECT count(*), ?, x?, -? FROM c, t WHERE t.b = ? OR t.b = ?" in read["sql"], read
    assert "USING" in read["plan"] and "INDEX i" in read["plan"], read
    assert write["sql"].endswith("INSERT INTO t(b) SELECT ? || x FROM c") and "SCAN c" in write["plan"], write
    with open(os.path.join(c.data_dir, "log", "node1.log")) as f:
        assert "hidden" not in f.read(), "a value is in the log"
    assert sum(metrics(c)["grizzly_slow_queries_total"].values()) >= 2
    # Off while running.
    c.config["logging"] = {"slow_query_ms": 0, "format": "json"}
    c.write_config()
    assert c.command("reload").returncode == 0
    c.wait(lambda: "reloaded" in log_lines(c, "node1")[-1], 10, "the node to have reloaded")
    before = sum(metrics(c)["grizzly_slow_queries_total"].values())
    c.ok("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 100000) SELECT count(*) FROM c")
    assert sum(metrics(c)["grizzly_slow_queries_total"].values()) == before
