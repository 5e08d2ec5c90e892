"""A replica that the log cannot help gets a whole copy of the database, by itself, while everything else goes on."""
import os
import re
import shutil
import threading
import time

from harness import scenario
from load import Load

SMALL_LOG = {"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 1 << 20, "keep_bytes": 2 << 20}}


def fill(c, megabytes, table="big"):
    """So much data, in transactions of a megabyte."""
    c.ok("CREATE TABLE IF NOT EXISTS %s(id INTEGER PRIMARY KEY, v BLOB)" % table)
    for _ in range(megabytes):
        c.ok("INSERT INTO %s(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10) "
             "SELECT randomblob(100000) FROM n" % table, timeout_ms=60000)


def trim(c, lsn=0, nodes=None):
    """Writes until the logs of nodes (the master's) do not have the record behind lsn any more."""
    def trimmed():
        c.ok("CREATE TABLE IF NOT EXISTS churn(v BLOB); DELETE FROM churn; INSERT INTO churn VALUES (randomblob(900000))")
        return all(c.node_status(node)["first_lsn"] > lsn + 1 for node in nodes or [c.master()])
    c.wait(trimmed, 30, "the log to be trimmed")


def flip(path, offset, count=64):
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(count)
        assert len(old) == count, path
        f.seek(offset)
        f.write(bytes(b ^ 0x5a for b in old))


def standing(c, node):
    with open(os.path.join(c.data_dir, node + ".state")) as f:
        return f.read().strip()


def log_of(c, node):
    with open(os.path.join(c.data_dir, "log", node + ".log"), errors="replace") as f:
        return f.read()


def pages_sent(c):
    """Of each snapshot that was sent to its end, whoever was master: how many pages travelled, of how many."""
    found = []
    for node in ("node1", "node2", "node3"):
        found += re.findall(r"was sent (\d+) of the snapshot's (\d+) pages", log_of(c, node))
    return [(int(sent), int(size)) for sent, size in found]


def lose_directory(c, node):
    """kill -9 and an empty place where its files were; the supervisor has not had the time to start it between."""
    pid = c.pid(node)
    supervisor = c.freeze("supervisor")
    c.freeze_pid(pid)
    lost = os.path.join(c.ctx.directory, node + ".lost")
    shutil.rmtree(lost, ignore_errors=True)  # of the time before
    shutil.move(os.path.join(c.data_dir, node), lost)
    os.kill(pid, 9)
    c.thaw(supervisor)


def wait_arriving(c, node, already_sent, size=0):
    """Waits until more than size bytes of a snapshot are there; False when it was whole before anybody looked.

    already_sent: how many pages_sent() knew before."""
    arriving = os.path.join(c.data_dir, node + ".incoming", "main.db")

    def some_arrived():
        try:
            return os.stat(arriving).st_blocks * 512 >= size and "some"
        except FileNotFoundError:
            return len(pages_sent(c)) > already_sent and "all"
    return c.wait(some_arrived, 20, "a part of the snapshot", interval_s=0.001) == "some"


def wait_whole(c, nodes=("node1", "node2", "node3")):
    c.wait_all_up(40)
    c.wait_converged(40)
    c.wait(lambda: all(standing(c, n) == "whole" for n in nodes), 10, "every node to count again")


def needles(c, node):
    """Small records to be damaged; True when no checkpoint came between."""
    c.needle = c.ok("DELETE FROM needles")["lsn"]
    for i in range(20):
        c.ok("INSERT INTO needles VALUES (?)", ["needle %d %d " % (c.needle, i)])
    time.sleep(0.1)  # longer than the checkpointer's pauses
    return c.node_status(node)["checkpoint_lsn"] <= c.needle


def damage_log(c, node):
    """In the middle of what the base file does not hold yet: where the tenth needle was first written."""
    directory = os.path.join(c.data_dir, node, "wal")
    for name in sorted(n for n in os.listdir(directory) if n.endswith(".wal")):
        path = os.path.join(directory, name)
        with open(path, "rb") as f:
            at = f.read().find(b"needle %d 10 " % c.needle)
        if at >= 0:
            return flip(path, at)
    raise AssertionError("no record to damage")


def damage_base(c, node):
    flip(os.path.join(c.data_dir, node, "main.db"), 24, 4)


def remove_meta(c, node):
    os.unlink(os.path.join(c.data_dir, node, "store.meta"))


def empty_directory(c, node):
    shutil.rmtree(os.path.join(c.data_dir, node))


@scenario(timeout_s=90, start=False, cases={"log": (damage_log,), "base_file": (damage_base,), "meta": (remove_meta,),
                                            "directory": (empty_directory,)})
def damaged_store_is_replaced_from_the_master(ctx, damage):
    c = ctx.cluster(replicas=2, settings=SMALL_LOG)
    c.start()
    fill(c, 4)
    trim(c)
    c.ok("CREATE TABLE needles(t)")
    node = c.replicas()[-1]
    c.wait(lambda: needles(c, node), 20, "records behind the checkpoint")
    c.wait_converged()
    c.stop()
    damage(c, node)
    c.start(all_up=False)
    wait_whole(c)
    assert c.master() != node
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 40
    assert "is sent a snapshot" in log_of(c, c.master())
    if damage is not empty_directory:
        assert os.path.exists(os.path.join(c.data_dir, node + ".damaged")), "the damaged store was not kept"
    assert not os.path.exists(os.path.join(c.data_dir, node + ".incoming"))
    c.check_integrity()
    # It counts again: the cluster goes on with it when another one is gone.
    c.kill(c.master())
    c.wait_writable()


@scenario(timeout_s=90, start=False, cases={"master": ("node1",), "replica": ("node2",)})
def one_of_two_nodes_loses_its_directory(ctx, node):
    """The other one has everything; nothing can be acknowledged before the lost one is back, or the cluster would hang."""
    c = ctx.cluster(replicas=1, settings=SMALL_LOG)
    c.start()
    fill(c, 3)
    trim(c)
    c.wait_converged()
    c.stop()
    empty_directory(c, node)
    c.start(all_up=False)
    wait_whole(c, ("node1", "node2"))
    assert c.master() != node
    c.wait_writable()
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 30


@scenario(timeout_s=90, start=False)
def replica_that_was_away_for_longer_than_the_log_gets_a_snapshot(ctx):
    c = ctx.cluster(replicas=2, settings=SMALL_LOG)
    c.start()
    c.ok("CREATE TABLE early(v); INSERT INTO early VALUES (1)")
    fill(c, 4, table="kept")
    c.wait_converged()
    node, lsn = c.replicas()[-1], c.node_status(c.master())["applied_lsn"]
    c.stop()
    directory, old = os.path.join(c.data_dir, node), os.path.join(ctx.directory, "old")
    shutil.copytree(directory, old)
    c.start()
    fill(c, 4)
    trim(c, lsn, list(c.pids()))
    c.wait_converged()
    c.stop()
    shutil.rmtree(directory)
    shutil.move(old, directory)
    c.start(all_up=False)
    wait_whole(c)
    sent, size = pages_sent(c)[-1]
    assert 500 < sent < size * 0.7, "%d of %d pages, though the replica had half of them" % (sent, size)
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 40
    c.check_integrity()


@scenario(timeout_s=120, settings=SMALL_LOG)
def snapshot_goes_on_where_it_was_cut_short(c):
    fill(c, 100)
    trim(c)
    c.wait_converged()
    node = c.replicas()[0]

    def cut_short():
        already_sent = len(pages_sent(c))
        lose_directory(c, node)
        wait_arriving(c, node, already_sent, 20 << 20)
        try:
            c.kill(node)
        except ProcessLookupError:  # it has all of it, and has ended to start with it
            pass
        wait_whole(c)
        sent, size = pages_sent(c)[-1]
        return sent <= size - (16 << 20) // 4096  # some pages have changed since
    # While commits go on it comes slowly. A kill that is late all the same finds all of it there, and the next is sent whole.
    load = Load(c, writers=1, pause_s=0.01)
    assert any(cut_short() for _ in range(5)), "all pages came again, each time"
    load.stop()
    c.wait_converged()
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 1000


@scenario(timeout_s=120, settings=SMALL_LOG)
def writes_and_reads_go_on_during_a_snapshot(c):
    fill(c, 60)
    trim(c)
    c.wait_converged()
    node = c.replicas()[0]
    load = Load(c, writers=3)
    load.wait_more(30)
    wrong, stop, answered = [], threading.Event(), [0]

    def read():
        while not stop.is_set():
            try:
                answer = c.client(node, timeout_s=5).query("SELECT count(*) FROM big", consistency="stale")
            except OSError:  # it restarts twice
                time.sleep(0.002)
                continue
            if answer.ok and answer.value == 600:
                answered[0] += 1
            elif answer.ok or answer.code not in ("NO_MASTER", "UNAVAILABLE"):
                wrong.append(answer.text[:200])
    reader = threading.Thread(target=read)
    reader.start()
    lose_directory(c, node)
    c.wait(lambda: "is sent a snapshot" in log_of(c, c.master()), 20, "the snapshot to begin")
    load.wait_more(50)
    wait_whole_while_writing(c, node)
    stop.set()
    reader.join()
    load.stop()
    assert not wrong, wrong[:3]
    assert answered[0] > 0
    assert not load.errors, load.errors
    load.verify()
    wait_whole(c)
    load.verify(node, consistency="stale")
    assert c.status()["failovers"] == 0
    c.check_integrity()


def wait_whole_while_writing(c, node):
    c.wait(lambda: standing(c, node) == "whole" and c.node(node)["pid"], 40, "%s to count again" % node)


@scenario(timeout_s=120, settings=SMALL_LOG)
def master_killed_during_a_snapshot(c):
    fill(c, 150)
    trim(c)
    load = Load(c, writers=2)
    load.wait_more(30)
    node, master = c.replicas()[0], c.master()
    master_pid = c.pid(master)
    already_sent = len(pages_sent(c))
    lose_directory(c, node)
    wait_arriving(c, node, already_sent)
    os.kill(master_pid, 9)
    load.wait_more(50, deadline_s=30)
    load.stop()
    load.verify()
    wait_whole(c)
    load.verify(node, consistency="stale")
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 1500
    c.check_integrity()


@scenario(timeout_s=120, settings=SMALL_LOG)
def replica_killed_during_a_snapshot(c):
    fill(c, 100)
    trim(c)
    c.wait_converged()
    node = c.replicas()[0]
    already_sent = len(pages_sent(c))
    lose_directory(c, node)
    for _ in range(2):
        wait_arriving(c, node, already_sent)
        try:
            c.kill(node)
        except ProcessLookupError:  # it was restarting at this very moment
            pass
    wait_whole(c)
    assert c.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 1000


@scenario(timeout_s=120, start=False)
def diverged_replica_is_replaced_from_the_master(ctx):
    """A page that was changed on the replica's disk shows as soon as a record touches it."""
    c = ctx.cluster(replicas=2, settings=SMALL_LOG)
    c.start()
    fill(c, 3)
    trim(c)
    c.ok("CREATE TABLE wide(id INTEGER PRIMARY KEY, n INTEGER, pad TEXT)")
    lsn = c.ok("INSERT INTO wide(n, pad) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000) "
               "SELECT i, hex(zeroblob(400)) FROM n")["lsn"]
    node = c.replicas()[-1]
    trim(c, lsn, nodes=[node])
    c.wait_converged()
    c.stop()
    path = os.path.join(c.data_dir, node, "main.db")
    with open(path, "rb") as f:
        data = f.read()
    leaves = (p for p in range(0, len(data), 4096) if data[p] == 0x0d and b"0" * 800 in data[p:p + 4096])
    page = next(leaves) // 4096  # one that holds rows of wide
    flip(path, page * 4096 + 3000, 4)
    c.start()
    assert c.master() != node
    c.ok("UPDATE wide SET n = n + 1")
    c.wait(lambda: "->diverged" in log_of(c, node), 20, "the difference to be noticed")
    wait_whole(c)
    assert c.query("SELECT sum(n) FROM wide", node=node, consistency="stale").value == 2000 * 2001 // 2 + 2000
    c.check_integrity()


@scenario(timeout_s=120, start=False)
def damaged_voter_does_not_count(ctx):
    """What only the master and one replica hold must not be lost when the one is away and the other's log is damaged."""
    c = ctx.cluster(replicas=2, settings={"commit_timeout_ms": 2000})
    c.start()
    c.ok("CREATE TABLE v(a)")
    c.wait_converged()
    master, (holder, absent) = c.master(), c.replicas()
    c.freeze("supervisor")
    os.kill(c.last_pids[absent], 9)
    for i in range(50):
        c.ok("INSERT INTO v VALUES (?)", [i])
    c.kill_all()
    directory = os.path.join(c.data_dir, master)
    shutil.move(directory, os.path.join(ctx.directory, "away"))
    damage_first_record(c, holder)
    c.start_supervisor()
    c.wait(lambda: c.node(holder)["state"] == "diverged" and c.node(absent)["state"] == "catching-up", 20,
           "the nodes to answer")
    time.sleep(1.5)
    status = c.status()
    assert not status["master"], "a node without the acknowledged writes became master: %s" % status
    c.stop()
    shutil.rmtree(directory)
    shutil.move(os.path.join(ctx.directory, "away"), directory)
    with open(os.path.join(c.data_dir, master + ".state"), "w") as f:
        f.write("whole\n")  # as docs/operations.md says for files that were brought back
    c.start(all_up=False)
    wait_whole(c)
    for node in (master, holder, absent):
        assert c.query("SELECT count(*) FROM v", node=node, consistency="stale").value == 50


def damage_first_record(c, node):
    directory = os.path.join(c.data_dir, node, "wal")
    flip(os.path.join(directory, sorted(n for n in os.listdir(directory) if n.endswith(".wal"))[0]), 300)
