"""The log is kept for whoever needs it, and no longer than its cap allows: nobody's absence fills the disk."""
import os
import signal
import threading
import time
import urllib.request

from cluster import tagged_pids
from harness import scenario
from load import Load
from test_snapshot import log_of, lose_directory, wait_whole

MIB = 1 << 20
CAP = 48 * MIB
SMALL = {"store": {"segment_size_bytes": MIB, "checkpoint_bytes": 2 * MIB},
         "log": {"keep_bytes": 4 * MIB, "max_bytes": CAP}}


def cap_here(c):
    """A sanitizer slows the checkpointer down, which writes and cuts."""
    return CAP if c.ctx.slow == 1 else CAP + 16 * MIB


class Watch:
    """How large the log's files of some nodes were, at most."""

    def __init__(self, c, nodes):
        self.c, self.nodes, self.most, self.stopping = c, nodes, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            self.most = max([self.most] + [self.c.log_bytes(n) for n in self.nodes])
            time.sleep(0.01)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return self.most


def write_megabytes(c, count):
    """Half a megabyte at a time; how long each took."""
    took = []
    for _ in range(2 * count):
        began = time.monotonic()
        c.ok("UPDATE churn SET v = randomblob(500000)")
        took.append(time.monotonic() - began)
    return sorted(took)


def peer(c, node):
    return next(r for r in c.node_status(c.last_master)["replicas"] if r["id"] == node)


@scenario(timeout_s=120, settings=SMALL)
def stopped_replica_is_cut_off_at_the_cap_and_comes_back_by_snapshot(c):
    c.ok("CREATE TABLE churn(v); INSERT INTO churn VALUES (x'')")
    c.wait_converged()
    node, master = c.replicas()[0], c.master()
    others = [n for n in c.pids() if n != node]
    before = write_megabytes(c, 5)
    c.wait_converged()
    supervisor = c.freeze("supervisor")  # it would end what does not answer
    stopped = c.freeze_pid(c.last_pids[node])
    watch = Watch(c, others)
    held = peer(c, node)["held_lsn"]
    assert held > 0, "the log is kept for a replica that is behind"
    during = write_megabytes(c, 75)  # all of them while it stands still: none waits for it
    most = watch.stop()
    assert most <= cap_here(c), "the log grew to %.1f MiB" % (most / MIB)
    assert most > 12 * MIB, "it was not kept for the replica: %.1f MiB" % (most / MIB)
    told = peer(c, node)
    assert told["cut_offs"] >= 1 and (told["held_lsn"] == 0 or told["held_lsn"] > held), told
    assert "%s is cut off" % node in log_of(c, master)
    status = c.node_status(master)
    assert status["log"]["max_bytes"] == CAP and status["log"]["keep_bytes"] == 4 * MIB, status["log"]
    assert status["log"]["first_lsn"] > held and status["log"]["size_bytes"] <= cap_here(c)
    c.thaw(stopped)
    c.thaw(supervisor)
    wait_whole(c)
    assert "%s is sent a snapshot" % node in log_of(c, master)
    assert c.query("SELECT length(v) FROM churn", node=node, consistency="stale").value == 500000
    c.check_integrity()
    c.ctx.note("most %.1f MiB, median write %.0f ms before, %.0f ms meanwhile" % (
        most / MIB, before[len(before) // 2] * 1000, during[len(during) // 2] * 1000))


def process_of(c, node):
    """Without asking anybody: there is little time."""
    for pid in tagged_pids(c.ctx.directory):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if node.encode() in words:
            return pid
    raise AssertionError("no process of " + node)


@scenario(timeout_s=120, settings=SMALL)
def replica_stopped_during_its_snapshot_is_cut_off_too(c):
    c.ok("CREATE TABLE churn(v); INSERT INTO churn VALUES (x'')")
    c.ok("CREATE TABLE big(v)")
    for _ in range(50):
        c.ok("INSERT INTO big VALUES (randomblob(1000000))")
    write_megabytes(c, 10)
    c.wait_converged()
    node, master = c.replicas()[0], c.master()
    others = [n for n in c.pids() if n != node]
    lose_directory(c, node)
    incoming = os.path.join(c.data_dir, node + ".incoming", "main.db")
    c.wait(lambda: os.path.getsize(incoming) > 0, 20, "the snapshot to begin", interval_s=0.0005)
    stopped = process_of(c, node)
    os.kill(stopped, signal.SIGSTOP)
    supervisor = c.freeze("supervisor")
    watch = Watch(c, others)
    write_megabytes(c, 75)
    most = watch.stop()
    assert most <= cap_here(c), "the log grew to %.1f MiB" % (most / MIB)
    c.thaw(stopped)
    c.thaw(supervisor)
    wait_whole(c)
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 50
    if "%s is cut off" % node not in log_of(c, master):
        c.ctx.note("the snapshot was whole before the replica was stopped")
    c.check_integrity()


@scenario(timeout_s=90, settings=SMALL)
def backup_that_holds_the_log_is_broken_off_at_the_cap(c):
    c.ok("CREATE TABLE churn(v); INSERT INTO churn VALUES (x'')")
    c.ok("CREATE TABLE big(v)")
    for _ in range(12):
        c.ok("INSERT INTO big VALUES (randomblob(1000000))")
    c.wait_converged()
    node = c.replicas()[0]
    request = urllib.request.Request("http://127.0.0.1:%d/backup" % c.node_port(node),
                                     headers={"Authorization": "Bearer " + c.token})
    answer = urllib.request.urlopen(request, timeout=60)
    answer.read(4096)
    watch = Watch(c, list(c.pids()))
    write_megabytes(c, 60)
    read = 4096
    try:
        while True:
            piece = answer.read(1 << 20)
            if not piece:
                break
            read += len(piece)
    except OSError:
        pass
    answer.close()
    assert read < int(answer.headers["Content-Length"]), "the whole backup came"
    c.wait(lambda: "is cut off: it holds the log" in log_of(c, node), 10, "the node to say why")
    write_megabytes(c, 10)
    most = watch.stop()
    assert most <= cap_here(c), "the log grew to %.1f MiB" % (most / MIB)


@scenario(timeout_s=90, settings=SMALL)
def replica_that_is_away_for_a_moment_needs_no_snapshot(c):
    """Within log.keep_bytes it goes on by the log alone."""
    c.ok("CREATE TABLE churn(v); INSERT INTO churn VALUES (x'')")
    write_megabytes(c, 10)
    c.wait_converged()
    node, master = c.replicas()[0], c.master()
    load = Load(c, writers=2)
    c.kill(node)
    load.wait_more(30)
    load.stop()
    c.wait_all_up()
    c.wait_converged()
    load.verify(node, consistency="stale")
    assert "is sent a snapshot" not in log_of(c, master)


@scenario(start=False, timeout_s=60)
def impossible_limits_are_refused(ctx):
    for settings, text in (({"log": {"keep_bytes": 64 * MIB, "max_bytes": 32 * MIB}}, "at least log.keep_bytes"),
                           ({"log": {"keep_bytes": MIB, "max_bytes": 32 * MIB}}, "4 times store.segment_size_bytes")):
        c = ctx.cluster(replicas=0, settings=settings)
        done = c.command("run")
        assert done.returncode == 2 and text in done.stderr, (done.returncode, done.stderr)
