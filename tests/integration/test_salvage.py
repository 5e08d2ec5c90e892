"""What only a deposed master had is kept, readable, before the node cuts it to follow its successor."""
import json
import os
import shutil
import signal
import socket

from cluster import alive, wait_until
from harness import scenario
from test_snapshot import SMALL_LOG, fill, trim

SETTINGS = {"commit_timeout_ms": 2000}


def depose_with_a_tail(c, write):
    """Leaves the master's log with records nobody else has: its replicas die before write() and the supervisor sees
    nothing of it. Returns the old master's id and the socket that keeps it from coming back."""
    c.wait_all_up()
    c.wait_converged()
    old, pids, replicas = c.last_master, dict(c.last_pids), list(c.last_replicas)
    supervisor = c.freeze("supervisor")
    for node in replicas:
        os.kill(pids[node], signal.SIGKILL)
        wait_until(lambda pid=pids[node]: not alive(pid), 10, "%s to end" % node)
    write(old)
    os.kill(pids[old], signal.SIGKILL)
    wait_until(lambda: not alive(pids[old]), 10, "the master to end")
    blocker = socket.socket()
    blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Its last threads may hold the port for a moment longer.
    wait_until(lambda: blocker.bind(("127.0.0.1", c.node_port(old))) is None, 10, "the master's port")
    blocker.listen(1)
    c.thaw(supervisor)
    c.wait(lambda: c.status()["master"] in replicas, 20, "a successor")
    c.wait_writable()
    return old, blocker


def changes_of(c, entry):
    with open(os.path.join(c.data_dir, entry["changes"])) as f:
        lines = [json.loads(line) for line in f]
    return lines[0], lines[1:]


def salvaged(c):
    done = c.command("salvage", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@scenario(timeout_s=60, settings=SETTINGS)
def rows_of_a_deposed_master_are_kept_readable(c):
    c.ok("CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO a VALUES (1,'one'),(2,'two'),(3,'three');"
         "CREATE TABLE k(x TEXT, y INTEGER, v, PRIMARY KEY(x, y)) WITHOUT ROWID; INSERT INTO k VALUES ('p',1,'old');"
         "CREATE TABLE untouched(v); INSERT INTO untouched VALUES (1)")
    assert salvaged(c) == []

    def write(old):
        c.query("INSERT INTO a VALUES (4, 'four'); UPDATE a SET v = 'TWO' WHERE id = 2; DELETE FROM a WHERE id = 3;"
                "INSERT INTO k VALUES ('q',2,x'00ff'); UPDATE k SET v = 1.5 WHERE x = 'p';"
                "CREATE TABLE made(z); INSERT INTO made VALUES (NULL)", node=old).must_fail(503, "NO_QUORUM")
    old, blocker = depose_with_a_tail(c, write)
    c.ok("INSERT INTO a VALUES (4, 'other')")
    blocker.close()
    c.wait_all_up(30)
    c.wait_converged()
    assert c.query("SELECT v FROM a WHERE id = 4").value == "other"
    entry, = salvaged(c)
    assert entry["node"] == old and entry["certain"] and entry["complete"], entry
    header, changes = changes_of(c, entry)
    assert header["node"] == old and header["first_lsn"] <= header["last_lsn"] and header["reason"], header
    assert header["kept_lsn"] == header["first_lsn"] - 1
    by_table = {}
    for change in changes:
        by_table.setdefault(change.get("table") or change["name"], []).append(change)
    assert "untouched" not in by_table, by_table
    assert by_table["a"] == [
        {"op": "update", "table": "a", "rowid": 2, "old": {"id": 2, "v": "two"}, "new": {"id": 2, "v": "TWO"}},
        {"op": "delete", "table": "a", "rowid": 3, "old": {"id": 3, "v": "three"}},
        {"op": "insert", "table": "a", "rowid": 4, "new": {"id": 4, "v": "four"}}], by_table["a"]
    assert {"op": "insert", "table": "k", "new": {"x": "q", "y": 2, "v": {"$blob": "AP8="}}} in by_table["k"]
    assert {"op": "update", "table": "k", "old": {"x": "p", "y": 1, "v": "old"},
            "new": {"x": "p", "y": 1, "v": 1.5}} in by_table["k"]
    assert by_table["made"][0]["op"] == "create" and by_table["made"][0]["sql"] == "CREATE TABLE made(z)"
    assert by_table["made"][1] == {"op": "insert", "table": "made", "rowid": 1, "new": {"z": None}}
    with open(os.path.join(c.data_dir, entry["records"]), "rb") as f:
        assert f.read(4) == b"GzR1"
    # Named until the operator has dealt with it.
    assert c.node(old)["salvage"] == [entry["changes"]]
    table = c.command("status").stdout
    assert entry["changes"] in table, table
    c.wait(lambda: any(e["event"] == "salvage" and e["node"] == old for e in events(c)), 10, "the event")
    os.unlink(os.path.join(c.data_dir, entry["changes"]))
    os.unlink(os.path.join(c.data_dir, entry["records"]))
    assert c.node(old)["salvage"] == [] and salvaged(c) == []


def events(c):
    done = c.command("events", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@scenario(timeout_s=60, settings=SETTINGS)
def what_the_cluster_has_is_not_salvaged(c):
    """An ordinary failover, and a deposed master without a tail, leave nothing."""
    c.ok("CREATE TABLE b(v); INSERT INTO b VALUES (1)")
    old, blocker = depose_with_a_tail(c, lambda node: None)
    blocker.close()
    c.wait_all_up(30)
    c.kill(c.master())
    c.wait_all_up(30)
    c.wait_converged()
    assert salvaged(c) == [], (old, salvaged(c))


@scenario(timeout_s=90, settings=SETTINGS)
def salvage_that_cannot_be_written_delays_the_return_but_does_not_prevent_it(c):
    """A file stands where the directory should be: as good as a full disk."""
    c.ok("CREATE TABLE b(v); INSERT INTO b VALUES (1)")

    def write(old):
        c.query("INSERT INTO b VALUES (2)", node=old).must_fail(503, "NO_QUORUM")
    old, blocker = depose_with_a_tail(c, write)
    in_the_way = os.path.join(c.data_dir, old + ".salvage")
    with open(in_the_way, "w"):
        pass
    blocker.close()
    log = os.path.join(c.data_dir, "log", old + ".log")

    def said():
        with open(log) as f:
            return "cannot be kept yet" in f.read()
    c.wait(said, 20, "the node to say so")
    c.wait(lambda: "cannot be kept" in (c.node(old)["reason"] or ""), 10, "status to say so")
    assert c.node(old)["state"] != "up"
    os.unlink(in_the_way)
    c.wait_all_up(30)
    entry, = salvaged(c)
    _, changes = changes_of(c, entry)
    assert {"op": "insert", "table": "b", "rowid": 2, "new": {"v": 2}} in changes, changes


@scenario(timeout_s=120, settings=dict(SMALL_LOG, **SETTINGS))
def log_that_a_snapshot_replaces_is_kept_too(c):
    """The deposed master was away for so long that its successor's log does not reach back to where they part."""
    c.ok("CREATE TABLE b(v); INSERT INTO b VALUES (1)")

    def write(node):
        c.query("INSERT INTO b VALUES ('only here')", node=node).must_fail(503, "NO_QUORUM")
    old, blocker = depose_with_a_tail(c, write)
    directory, aside = os.path.join(c.data_dir, old), os.path.join(c.ctx.directory, "aside")
    c.stop()
    blocker.close()
    shutil.move(directory, aside)
    c.start()
    fill(c, 4)
    trim(c)
    c.wait_converged()
    c.stop()
    shutil.rmtree(directory)
    shutil.move(aside, directory)
    c.start()
    c.wait_converged(30)
    entry, = salvaged(c)
    assert entry["node"] == old and entry["complete"] and not entry["certain"], entry
    _, changes = changes_of(c, entry)
    assert any(change.get("table") == "b" and change["new"] == {"v": "only here"} for change in changes), changes
    assert c.query("SELECT count(*) FROM b").value == 1
