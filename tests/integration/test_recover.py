"""The way out when too few nodes are left for ever: an operator accepts a loss, knowing what it may be."""
import glob
import json
import os
import shutil
import signal
import socket

from cluster import kill_tagged
from harness import scenario

SETTINGS = {"commit_timeout_ms": 2000}


def events(c):
    done = c.command("events", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def lose(c, nodes):
    """Destroys the directories of nodes for good; everything stands still afterwards."""
    c.stop()
    for node in nodes:
        shutil.rmtree(os.path.join(c.data_dir, node))


@scenario(timeout_s=90, settings=SETTINGS)
def lost_quorum_is_recovered_only_when_the_loss_is_accepted(c):
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2)")
    c.wait_converged()
    term = c.status()["term"]
    lose(c, ["node1", "node2"])

    # Started as it is, the cluster says what it lacks, to the operator and to clients, and stays as it is.
    c.start_supervisor()

    def says():
        status = c.status()
        wanted = ("waits for enough nodes, 1 of the 2 needed promised", "node1 cannot be used", "node2 cannot be used",
                  "node3 promised")
        return status["master"] is None and all(w in status["reason"] for w in wanted) and status
    status = c.wait(says, 20, "a reason that names every node")
    assert "no master: " + status["reason"][:20] in c.command("status").stdout
    answer = c.wait(lambda: "node1 cannot be used" in (a := c.query(
        "INSERT INTO t VALUES (9)", node="node3", timeout_ms=100)).text and a, 20, "the reason on a node's port")
    answer.must_fail(503, "NO_MASTER")
    answer = c.client(timeout_s=20).request("POST", "/query", b'{"sql":"SELECT 1"}' + b" " * 200000)
    assert "node1 cannot be used" in answer.must_fail(503, "NO_MASTER")["message"], answer.text

    # Not while it runs.
    refused = c.command("recover", "--accept-loss")
    assert refused.returncode == 1 and "stop it first" in refused.stderr, (refused.stdout, refused.stderr)
    c.stop()

    # Shown, nothing done.
    shown = c.command("recover")
    assert shown.returncode == 1, shown.stdout
    for text in ("node3    whole", "node1    rebuilding", "when last seen at", "The best that survives is node3",
                 "No node was known to be further"):
        assert text in shown.stdout, (text, shown.stdout)
    assert "--accept-loss" in shown.stderr, shown.stderr
    assert os.path.isdir(os.path.join(c.data_dir, "node2"))

    done = c.command("recover", "--accept-loss")
    assert done.returncode == 0, (done.stdout, done.stderr)
    c.wait_all_up(30)
    c.wait_converged()
    status = c.status()
    assert status["master"] == "node3" and status["term"] > term, status
    assert c.query("SELECT v FROM t ORDER BY v").rows == [[1], [2]]
    c.ok("INSERT INTO t VALUES (3)")
    assert len(glob.glob(os.path.join(c.data_dir, "node[12].lost-*"))) == 2
    assert not os.path.exists(os.path.join(c.data_dir, "supervisor.recover"))
    recover = [e for e in events(c) if e["event"] == "recover"]
    assert len(recover) == 1 and recover[0]["node"] == "node3", recover

    # It is a cluster like any other again.
    c.kill("node3")
    c.wait(lambda: c.status()["master"] in ("node1", "node2"), 20, "a successor")
    c.wait_all_up(30)
    assert c.query("SELECT v FROM t ORDER BY v").rows == [[1], [2], [3]]
    c.stop()


@scenario(timeout_s=90, settings=SETTINGS)
def what_may_be_missing_is_estimated_from_what_was_last_seen(c):
    """The survivor was down while the others went on without it."""
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (0)")
    c.wait_converged()
    master, behind = c.last_master, c.replicas()[0]
    other = next(n for n in c.last_replicas if n != behind)
    pid = c.pid(behind)
    supervisor = c.freeze("supervisor")  # until its port is taken
    os.kill(pid, signal.SIGKILL)
    with socket.socket() as blocker:  # keeps it from coming back
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        c.wait(lambda: blocker.bind(("127.0.0.1", c.node_port(behind))) is None, 10, "its port")
        blocker.listen(1)
        c.thaw(supervisor)
        for i in range(1, 11):
            reached = c.ok("INSERT INTO t VALUES (?)", [i])["lsn"]

        def recorded():
            with open(os.path.join(c.data_dir, "supervisor.positions"), "rb") as f:
                return reached.to_bytes(8, "little") in f.read()
        c.wait(recorded, 20, "the positions to be recorded")
        c.kill("supervisor")
        kill_tagged(c.ctx.directory)
    for node in (master, other):
        shutil.rmtree(os.path.join(c.data_dir, node))
    shown = c.command("recover")
    assert shown.returncode == 1, shown.stdout
    assert "up to LSN %d of term" % reached in shown.stdout, shown.stdout
    assert "records may be missing" in shown.stdout, shown.stdout
    missing = int(shown.stdout.split(": up to ")[1].split(" records")[0])
    assert missing == 10, shown.stdout
    done = c.command("recover", "--accept-loss")
    assert done.returncode == 0, (done.stdout, done.stderr)
    c.wait_all_up(30)
    c.wait_converged()
    assert c.query("SELECT count(*) FROM t").value == 1
    c.stop()


@scenario(timeout_s=60)
def recover_refuses_where_nothing_needs_to_be_lost(c):
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    c.wait_converged()
    lose(c, ["node1"])
    for words in (("recover",), ("recover", "--accept-loss")):
        done = c.command(*words)
        assert done.returncode == 1 and "enough nodes survive" in done.stderr, (done.stdout, done.stderr)
    assert not glob.glob(os.path.join(c.data_dir, "*.lost-*"))
    c.start()
    assert c.query("SELECT count(*) FROM t").value == 1


def outlive(c, survivor):
    """All others are lost, the survivor recovers; the ids of the members that there are then."""
    gone = [node["id"] for node in c.status()["nodes"] if node["id"] != survivor]
    lose(c, gone)
    shown = c.command("recover")
    assert shown.returncode == 1 and "The best that survives is " + survivor in shown.stdout, shown.stdout
    done = c.command("recover", "--accept-loss")
    assert done.returncode == 0, (done.stdout, done.stderr)
    c.wait_all_up(30)
    c.wait_converged()
    assert c.status()["master"] == survivor, c.status()
    return [node["id"] for node in c.status()["nodes"]]


@scenario(timeout_s=120, settings=SETTINGS)
def members_that_changed_are_those_that_are_recovered(c):
    """The configuration still names the three of the beginning, of which one has left and a fourth has come."""
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    c.ok("ADD REPLICA 127.0.0.1:%d" % (c.port + 4))
    c.replica_count += 1
    c.wait_all_up()
    c.ok("REMOVE REPLICA node2")
    c.replica_count -= 1
    c.ok("INSERT INTO t VALUES (2)")
    c.wait_all_up()
    c.wait_converged()
    assert outlive(c, "node4") == ["node1", "node3", "node4"]
    assert c.query("SELECT v FROM t ORDER BY v").rows == [[1], [2]]
    lsn = c.ok("INSERT INTO t VALUES (3)")["lsn"]
    assert c.query("SELECT count(*) FROM t", node="node1", consistency="session", min_lsn=lsn).value == 3

    # Nor is that forgotten by the cluster that came of it.
    c.kill("node4")
    c.wait(lambda: c.status()["master"] in ("node1", "node3"), 20, "a successor")
    c.wait_all_up(30)
    c.wait_converged()
    assert [node["id"] for node in c.status()["nodes"]] == ["node1", "node3", "node4"]
    assert c.query("SELECT count(*) FROM t").value == 3
    c.stop()
