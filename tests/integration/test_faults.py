"""Faults from below: disks that hang, fail or fill up, clocks that jump, descriptors that run out.

What each of them does, and what an operator sees, is the table "Faults from below" of docs/operations.md.
"""
import errno
import http.client
import os
import re
import resource
import signal
import socket
import time

from faults import Faults
from harness import scenario
from load import Load

PROBING = {"heartbeat": {"probe_ms": 200}}
QUICK = {"heartbeat": {"probe_ms": 200, "stall_ms": 1000}}  # where a hang is what is tested
SHORT_LOG = dict(PROBING, store={"checkpoint_bytes": 65536, "segment_size_bytes": 65536, "keep_bytes": 65536})


def start(ctx, replicas=2, settings=None):
    """A cluster whose master is node1, and its faults."""
    faults = Faults(ctx)
    c = faults.prepare(ctx.cluster(replicas=replicas, settings=settings or PROBING))
    c.start()
    if c.master() != "node1":
        assert c.command("switchover", "--to", "node1").returncode == 0
        c.wait_all_up()
    return c, faults


def place(c, node):
    return os.path.join(os.path.realpath(c.data_dir), node)


def log_text(c, name):
    path = os.path.join(c.data_dir, "log", name)
    if name == "supervisor":
        path = os.path.join(c.ctx.directory, "supervisor-%d-%d.out" % (c.port, c.started))
    with open(path, errors="replace") as f:
        return f.read()


def fill(c, rows):
    """So many rows of 20 kB in a table f."""
    c.ok("CREATE TABLE IF NOT EXISTS f(v BLOB)")
    for _ in range(rows):
        c.ok("INSERT INTO f VALUES (randomblob(20000))")


def node_in(c, node, state):
    """What status says of the node, once it is in that state."""
    def look():
        seen = c.node(node)
        return seen if seen["state"] == state else None
    return c.wait(look, 20, "%s to be %s" % (node, state))


# -- disks that hang

@scenario(start=False)
def a_master_whose_disk_hangs_is_replaced_though_it_answers(ctx):
    c, faults = start(ctx, settings=QUICK)
    load = Load(c, writers=2)
    load.wait_more(20)
    pid = c.pid("node1")
    faults.hang("sync", place(c, "node1"))
    c.wait(lambda: c.status()["master"] not in (None, "node1"), 20, "a successor")
    assert "its disk has not completed a write for" in log_text(c, "supervisor"), "another reason"
    load.wait_more(20, 20)
    assert c.pids().get("node1") != pid, "the old process was left alone"
    faults.off("sync")
    load.stop()
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False)
def an_idle_master_whose_disk_hangs_is_replaced(ctx):
    c, faults = start(ctx, settings=QUICK)
    c.ok("CREATE TABLE t(v)")
    faults.hang("sync", place(c, "node1"))
    c.wait(lambda: c.status()["master"] not in (None, "node1"), 20, "a successor, without a single write")
    c.ok("INSERT INTO t VALUES (1)")
    faults.off("sync")
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False)
def a_replica_whose_disk_hangs_is_hung_and_left_alone(ctx):
    c, faults = start(ctx, settings=QUICK)
    c.ok("CREATE TABLE t(v)")
    c.wait_converged()
    pid = c.pid("node3")
    faults.hang("sync", place(c, "node3"))
    node = node_in(c, "node3", "hung")
    assert "its disk has not completed a write" in node["reason"], node
    c.ok("INSERT INTO t VALUES (1)")
    assert c.query("SELECT count(*) FROM t", node="node3", consistency="stale").value == 0
    assert c.pid("node3") == pid
    faults.off("sync")
    c.wait_all_up(30)
    c.wait_converged(30)
    assert c.pid("node3") == pid and c.node("node3")["restarts"] == 0


@scenario(start=False)
def a_hung_disk_below_all_nodes_ends_none_of_them(ctx):
    """Nobody could do better: what there is stays, and goes on when the disk does."""
    c, faults = start(ctx, settings=QUICK)
    c.ok("CREATE TABLE t(v)")
    before = c.pids()
    faults.hang("sync", os.path.realpath(c.data_dir))
    c.wait(lambda: all(n["state"] == "hung" for n in c.status()["nodes"]), 20, "all nodes to count as hung")
    assert c.query("SELECT count(*) FROM t", node="node1", consistency="stale").value == 0
    faults.off("sync")
    c.wait_all_up(30)
    c.ok("INSERT INTO t VALUES (1)")
    assert c.pids() == before and c.status()["failovers"] == 0


@scenario(start=False)
def a_slow_disk_is_no_hung_one(ctx):
    """Every sync takes longer than a heartbeat, and the budget is kept all the same."""
    c, faults = start(ctx, settings=QUICK)
    c.ok("CREATE TABLE t(v)")
    before = c.pids()
    for i in range(6):
        faults.hang("sync", place(c, "node1"))
        faults.wait_hit("sync")
        time.sleep(0.25)  # the fault itself: how long this sync takes
        faults.off("sync")
        c.ok("INSERT INTO t VALUES (%d)" % i)
    assert c.pids() == before and c.master() == "node1"


@scenario(start=False)
def a_single_node_whose_disk_hangs_serves_reads_and_recovers(ctx):
    c, faults = start(ctx, replicas=0, settings=QUICK)
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    pid = c.pid("node1")
    faults.hang("sync", place(c, "node1"))
    node = node_in(c, "node1", "hung")
    assert "its disk has not completed a write" in node["reason"], node
    assert c.query("SELECT v FROM t").value == 1
    faults.off("sync")
    c.wait_all_up(30)
    c.ok("INSERT INTO t VALUES (2)")
    assert c.pid("node1") == pid


@scenario(start=False)
def a_master_whose_writer_stands_still_is_replaced(ctx):
    c, faults = start(ctx, settings=QUICK)
    c.ok("CREATE TABLE t(v)")
    faults.stick("writer", c.pid("node1"))
    try:
        c.query("INSERT INTO t VALUES (1)").must_fail(503, "NO_QUORUM")
    except (OSError, http.client.HTTPException):
        pass  # the connection broke with the old master
    c.wait(lambda: c.status()["master"] not in (None, "node1"), 20, "a successor")
    assert "the thread that writes its log has stood still for" in log_text(c, "supervisor")
    faults.off("stick")
    c.ok("INSERT INTO t VALUES (2)")
    c.wait_all_up(30)
    c.wait_converged(30)


# -- a way back to the master that is dead, though nobody says so

@scenario(start=False, timeout_s=120, quick=False)
def a_replica_whose_acknowledgements_get_lost_makes_another_connection(ctx):
    c, faults = start(ctx, replicas=1, settings=dict(PROBING, replication={"local": "tcp"}))
    c.ok("CREATE TABLE t(v)")
    faults.swallow_acks(c.port + 201)
    first = c.pid("node2")
    c.kill("node2")
    c.wait(lambda: c.node("node2")["pid"] not in (None, first), 20, "node2 to be started again")
    second = c.pid("node2")
    faults.wait_hit("acks")
    c.wait(lambda: "as if it heard no answer" in log_text(c, "node2.log"), 30, "node2 to notice it")
    c.wait_all_up(40)
    assert c.pid("node2") == second
    assert log_text(c, "node2.log").count("as if it heard no answer") == 1
    c.ok("INSERT INTO t VALUES (1)")  # by both of them
    c.wait_converged(30)


# -- syncs and writes that fail

@scenario(start=False)
def a_master_whose_sync_fails_ends_and_is_replaced(ctx):
    c, faults = start(ctx)
    load = Load(c, writers=2)
    load.wait_more(20)
    pid = c.pid("node1")
    faults.fail("sync", place(c, "node1"))
    c.wait(lambda: c.status()["master"] not in (None, "node1"), 20, "a successor")
    load.wait_more(20, 20)
    ended = c.wait(lambda: c.node("node1")["last_end"], 10, "node1's last words")
    assert "cannot sync" in ended and "Input/output error" in ended, ended
    # As long as the disk fails so does every new process, and status says why.
    node = node_in(c, "node1", "down")
    assert "cannot sync" in (node["reason"] or "") or "its disk fails" in (node["reason"] or ""), node
    faults.off("sync")
    load.stop()
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)
    assert c.pid("node1") != pid
    c.check_integrity()


@scenario(start=False)
def a_replica_whose_sync_fails_acknowledges_nothing_more(ctx):
    c, faults = start(ctx)
    c.ok("CREATE TABLE t(v)")
    c.wait_converged()
    faults.fail("sync", place(c, "node3"))
    for i in range(5):
        c.ok("INSERT INTO t VALUES (%d)" % i)
    node = node_in(c, "node3", "down")
    assert any(w in (node["reason"] or "") for w in ("cannot sync", "its disk fails")), node
    assert c.master() == "node1" and c.status()["failovers"] == 0
    faults.off("sync")
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False)
def a_single_node_whose_sync_fails_promises_nothing_and_comes_back(ctx):
    c, faults = start(ctx, replicas=0)
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    faults.fail("sync", place(c, "node1"))
    try:
        answer = c.client(timeout_s=10).query("INSERT INTO t VALUES (2)")
        assert not answer.ok, answer.text
    except (OSError, http.client.HTTPException):
        pass  # the connection broke with the process
    ended = c.wait(lambda: c.node("node1")["last_end"], 10, "node1's last words")
    assert "cannot sync" in ended, ended
    faults.off("sync")
    c.wait_all_up(30)
    assert c.query("SELECT count(*) FROM t WHERE v = 1").value == 1
    c.ok("INSERT INTO t VALUES (3)")
    c.kill_all()
    c.start()
    assert c.query("SELECT count(*) FROM t WHERE v = 3").value == 1
    c.check_integrity()


@scenario(start=False)
def a_file_system_that_turns_read_only_below_the_master_costs_nothing(ctx):
    c, faults = start(ctx)
    load = Load(c, writers=2)
    load.wait_more(20)
    faults.fail("open", place(c, "node1"), errno.EROFS)
    faults.fail("write", place(c, "node1"), errno.EROFS)
    c.wait(lambda: c.status()["master"] not in (None, "node1"), 20, "a successor")
    load.wait_more(20, 20)
    node = node_in(c, "node1", "down")
    assert "Read-only file system" in (node["reason"] or "") + (node["last_end"] or ""), node
    faults.off("open")
    faults.off("write")
    load.stop()
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False)
def a_read_only_file_system_of_a_single_node_leaves_reads(ctx):
    c, faults = start(ctx, replicas=0)
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    faults.fail("open", place(c, "node1"), errno.EROFS)
    faults.fail("write", place(c, "node1"), errno.EROFS)
    answer = c.query("INSERT INTO t VALUES (2)")
    assert answer.http == 500 and "Read-only file system" in answer.message, answer.text
    node = c.wait(lambda: c.node("node1")["reason"] and c.node("node1"), 20, "a reason in status")
    assert "its disk fails" in node["reason"] and "Read-only file system" in node["reason"], node
    assert c.query("SELECT count(*) FROM t").value == 1
    faults.off("open")
    faults.off("write")
    c.wait(lambda: c.node("node1")["state"] == "up", 20, "node1 to recover")
    c.ok("INSERT INTO t VALUES (2)")
    assert c.query("SELECT count(*) FROM t").value == 2


# -- files that cannot be read

@scenario(start=False)
def a_page_that_cannot_be_read_ends_the_node_with_words(ctx):
    """A file that is too short is what an unreadable page is to a mapping: SIGBUS."""
    c, _ = start(ctx, settings=SHORT_LOG)
    fill(c, 60)
    c.wait_converged()
    base = os.path.join(place(c, "node1"), "main.db")
    c.wait(lambda: os.path.getsize(base) > 400000, 20, "a checkpoint")
    pid = c.pid("node1")

    def ends():
        os.truncate(base, 8192)  # and again, when a checkpoint that was under way has made it longer
        try:
            c.client("node1", timeout_s=10).query("SELECT sum(length(v)) FROM f")
        except (OSError, http.client.HTTPException):
            return True
        return False

    c.wait(ends, 20, "node1 to read what is not there")
    c.wait(lambda: c.pids().get("node1") != pid, 20, "another process of node1")
    events = c.command("events").stdout  # its last_end may be the next one's by now, which set the damaged files aside
    assert re.search(r'exit code 5: the disk did not deliver byte \d+ of "\S+main.db"', events), events
    c.wait_all_up(30)
    c.wait_converged(30)
    assert os.path.isdir(place(c, "node1") + ".damaged") and not os.path.exists(place(c, "node1") + ".unreadable")
    assert c.query("SELECT count(*) FROM f", node="node1", consistency="stale").value == 60
    c.check_integrity()


@scenario(start=False)
def files_that_cannot_be_read_at_a_start_are_fetched_from_the_master(ctx):
    c, faults = start(ctx)
    fill(c, 10)
    c.wait_converged()
    with open(place(c, "node3") + ".unreadable", "w") as f:  # as the process before would have left it
        f.write("the disk did not deliver byte 4096 of \"main.db\"")
    faults.fail("read", os.path.join(place(c, "node3"), "wal"))
    c.kill("node3")
    c.wait(lambda: os.path.isdir(place(c, "node3") + ".damaged"), 20, "the unreadable store to be set aside")
    faults.off("read")
    c.wait_all_up(30)
    c.wait_converged(30)
    assert not os.path.exists(place(c, "node3") + ".unreadable")


@scenario(start=False)
def files_that_can_be_read_again_are_kept(ctx):
    c, faults = start(ctx)
    fill(c, 10)
    c.wait_converged()
    with open(place(c, "node3") + ".unreadable", "w") as f:
        f.write("the disk did not deliver byte 4096 of \"main.db\"")
    c.kill("node3")
    c.wait_all_up(30)
    c.wait_converged(30)
    assert not os.path.exists(place(c, "node3") + ".unreadable")
    assert not os.path.exists(place(c, "node3") + ".damaged")


@scenario(start=False)
def files_that_can_be_read_again_but_hold_something_else_are_fetched_from_the_master(ctx):
    """As a file that lost its end and was made longer again by a checkpoint: zeros where pages were."""
    c, _ = start(ctx, settings=SHORT_LOG)
    fill(c, 60)
    c.wait_converged()
    c.stop()
    base = os.path.join(place(c, "node3"), "main.db")
    with open(base, "r+b") as f:
        f.seek(40 * 4096)
        assert any(f.read(4096))
        f.seek(40 * 4096)
        f.write(bytes(4096))
    with open(place(c, "node3") + ".unreadable", "w") as f:
        f.write("the disk did not deliver byte 163840 of \"main.db\"")
    c.start()
    c.wait_all_up(30)
    c.wait_converged(30)
    assert "can be read, but holds other pages than were written" in log_text(c, "node3.log")
    assert os.path.isdir(place(c, "node3") + ".damaged") and not os.path.exists(place(c, "node3") + ".unreadable")
    assert c.query("SELECT count(*) FROM f WHERE length(v) = 20000", node="node3", consistency="stale").value == 60
    c.check_integrity()


# -- space

@scenario(start=False)
def below_the_low_space_mark_the_master_takes_no_writes(ctx):
    c, faults = start(ctx)
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    faults.space(os.path.realpath(c.data_dir), 40 << 20)
    c.wait(lambda: c.node_status("node1")["low_space"], 20, "node1 to see it")
    lsn = c.node_status("node1")["durable_lsn"]
    answer = c.query("INSERT INTO t VALUES (2)")
    answer.must_fail(500, "INTERNAL")
    assert "no space left" in answer.message and "low-space mark" in answer.message, answer.text
    assert c.query("SELECT count(*) FROM t").value == 1
    assert c.node_status("node1")["durable_lsn"] == lsn
    c.wait(lambda: all(n["low_space"] and "low-space mark" in (n["reason"] or "") and n["state"] == "up"
                       for n in c.status()["nodes"]), 20, "all to say so, and to be up")
    assert "low-space mark" in c.command("status").stdout
    faults.space(os.path.realpath(c.data_dir), 1 << 30)
    c.wait(lambda: c.query("INSERT INTO t VALUES (2)").ok, 20, "a write after room was made")
    assert c.query("SELECT count(*) FROM t").value == 2
    c.wait(lambda: not any(n["reason"] for n in c.status()["nodes"]), 20, "nothing more to say")
    assert c.status()["failovers"] == 0


@scenario(start=False)
def a_replica_below_the_mark_lets_its_log_not_grow(ctx):
    c, faults = start(ctx, settings=dict(PROBING, store={"segment_size_bytes": 65536, "checkpoint_bytes": 4 << 20}))
    fill(c, 4)
    c.wait_converged()
    faults.space(place(c, "node3"), 40 << 20)
    c.wait(lambda: c.node("node3")["low_space"], 20, "node3 to see it")
    size = c.node_status("node3")["wal_size_bytes"]
    fill(c, 40)
    node = node_in(c, "node3", "catching-up")
    assert "low-space mark" in node["reason"], node
    assert c.node_status("node3")["wal_size_bytes"] <= size
    faults.off("space")
    c.wait_all_up(30)
    c.wait_converged(30)


# -- clocks, descriptors

@scenario(start=False)
def a_wall_clock_that_jumps_stops_nothing_and_times_of_records_never_go_back(ctx):
    c, faults = start(ctx)
    c.ok("CREATE TABLE t(v)")
    before = c.pids()
    for i, seconds in enumerate((-86400, 86400 * 400, -3600, 0)):
        faults.wall(seconds)
        load = Load(c, writers=2, name="jump%d" % i)
        load.wait_more(30)
        time.sleep(0.5)  # heartbeats, keep-alives and probes under the new time
        load.stop()
        load.verify()
    faults.off("wall")
    assert c.pids() == before and c.status()["failovers"] == 0
    c.wait_converged()
    c.kill("node1")
    c.wait_all_up(30)
    c.wait_converged(30)


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


@scenario(start=False)
def descriptors_that_run_out_refuse_clients_and_nothing_else(ctx):
    c = ctx.cluster(replicas=2, settings={"store": {"segment_size_bytes": 65536, "checkpoint_bytes": 262144,
                                                    "keep_bytes": 131072}})
    c.start()
    if c.master() != "node1":
        assert c.command("switchover", "--to", "node1").returncode == 0
    pid = c.pid("node1")
    c.ok("CREATE TABLE f(v)")
    kept = c.client(keep_alive=True)
    kept.query("INSERT INTO f VALUES (0)").must()
    # What it tries its disk with is open from the first time on.
    c.wait(lambda: os.path.exists(os.path.join(place(c, "node1"), "probe")), 20, "an idle node's probe")
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid), limits[1]))
    crowd = []
    for _ in range(30):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", c.port))
        crowd.append(s)
    c.wait(lambda: "http cannot accept" in log_text(c, "node1.log"), 20, "accept() to fail")
    refused = 0
    for _ in range(20):  # more than a log segment: a new file is refused with a clear word, never a torn log
        answer = kept.query("INSERT INTO f VALUES (randomblob(20000))")
        if not answer.ok:
            refused += 1
            assert "Too many open files" in answer.message, answer.text
    said = log_text(c, "node1.log").count("http cannot accept")
    assert said < 200, "it spins: %d lines" % said
    assert c.status()["master"] == "node1" and c.pid("node1") == pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    for s in crowd:
        s.close()
    c.wait(lambda: c.query("INSERT INTO f VALUES (1)").ok, 20, "a write on a new connection")
    assert c.query("SELECT count(*) FROM f").value == 1 + 20 - refused + 1
    ctx.note("%d of 20 writes refused" % refused)
    c.wait_converged(30)
    c.check_integrity()


@scenario(start=False)
def a_low_limit_of_descriptors_is_kept_for_the_log(ctx):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 400:
        ctx.skip("the limit of open files is %d already" % limits[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (240, 240))  # of this scenario's process, and what it starts
    c = ctx.cluster(replicas=0, settings={"store": {"segment_size_bytes": 65536, "checkpoint_bytes": 1 << 20,
                                                    "keep_bytes": 1 << 20}})
    c.start()
    assert "client connections instead of http.connections_max" in log_text(c, "node1.log")
    c.ok("CREATE TABLE f(v)")
    kept = c.client(keep_alive=True)
    kept.query("INSERT INTO f VALUES (0)").must()
    crowd = []
    for _ in range(150):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", c.port))
        crowd.append(s)
    for _ in range(30):
        kept.query("INSERT INTO f VALUES (randomblob(20000))").must()
    assert "http cannot accept" not in log_text(c, "node1.log")
    for s in crowd:
        s.close()
    c.wait(lambda: c.query("SELECT 1").http == 200, 20, "room for a connection, when the crowd is known to be gone")
    assert kept.query("SELECT count(*) FROM f").value == 31


# -- what else is written

@scenario(start=False)
def a_checkpoint_that_fails_leaves_the_old_one_and_is_made_again(ctx):
    c, faults = start(ctx, replicas=0, settings=dict(PROBING, store={"checkpoint_bytes": 65536,
                                                                   "segment_size_bytes": 65536}))
    fill(c, 5)
    faults.fail("sync", os.path.join(place(c, "node1"), "main.db"))
    fill(c, 20)
    faults.wait_hit("sync")
    c.wait(lambda: "checkpoint failed, the old one stands" in log_text(c, "node1.log"), 20, "the word of it")
    before = c.node_status("node1")["checkpoint_lsn"]
    faults.off("sync")
    c.wait(lambda: c.node_status("node1")["checkpoint_lsn"] > before, 20, "a checkpoint that succeeds")
    c.kill_all()
    c.start()
    assert c.query("SELECT count(*) FROM f").value == 25
    c.check_integrity()


@scenario(start=False)
def a_term_that_cannot_be_stored_is_not_used(ctx):
    c, faults = start(ctx)
    c.ok("CREATE TABLE t(v)")
    term = c.status()["term"]
    faults.fail("sync", os.path.join(os.path.realpath(c.data_dir), "supervisor.term"))
    os.kill(c.pid("node1"), signal.SIGKILL)

    def stored():
        seen = c.status()
        return seen if not seen["master"] and "cannot be stored" in (seen["reason"] or "") else None
    status = c.wait(stored, 20, "status to say why there is no master")
    assert status["term"] == term
    faults.off("sync")
    c.wait_writable()
    c.wait_all_up(30)


@scenario(start=False)
def a_node_that_cannot_promise_a_term_does_not_count_and_says_so(ctx):
    c, faults = start(ctx)
    c.ok("CREATE TABLE t(v)")
    faults.fail("sync", os.path.join(place(c, "node2"), "term"))
    os.kill(c.pid("node1"), signal.SIGKILL)
    c.wait_writable()
    assert c.master() in ("node1", "node3")
    c.wait(lambda: "control: refused" in log_text(c, "node2.log"), 20, "node2 to say so")
    faults.off("sync")
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False)
def a_snapshot_that_finds_no_room_is_fetched_later(ctx):
    c, faults = start(ctx, settings=SHORT_LOG)
    fill(c, 60)
    c.wait_converged()
    c.wait(lambda: c.node_status("node1")["first_lsn"] > 1, 20, "the log's beginning to be trimmed")
    faults.fail("write", place(c, "node3") + ".incoming", errno.ENOSPC)
    with open(place(c, "node3") + ".unreadable", "w") as f:
        f.write("the disk did not deliver byte 4096 of \"main.db\"")
    faults.fail("read", os.path.join(place(c, "node3"), "wal"))
    c.kill("node3")
    c.wait(lambda: os.path.isdir(place(c, "node3") + ".damaged"), 20, "the unreadable store to be set aside")
    faults.off("read")
    c.wait(lambda: "the snapshot is given up" in log_text(c, "node3.log"), 20, "a snapshot to find no room")
    assert c.node("node3")["state"] != "up"
    faults.off("write")
    c.wait_all_up(40)
    c.wait_converged(30)
