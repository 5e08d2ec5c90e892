"""Accidents that befell other replicated databases, brought about here. docs/guarantees.md lists them with the rest."""
import ctypes
import os
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import threading
import time

from cluster import ByHand, alive
from harness import scenario
from load import Load

SMALL_LOG = {"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 1 << 20, "keep_bytes": 2 << 20}}


def contents(directory, skip=("log", "run")):
    """{path: bytes} of the regular files below directory."""
    found = {}
    for place, below, names in os.walk(directory):
        below[:] = [n for n in below if place != directory or n not in skip]
        for name in names:
            path = os.path.join(place, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as f:
                    found[os.path.relpath(path, directory)] = f.read()
    return found


def checkpointed(c, node):
    """Writes until the node's base file has more than nothing in it."""
    def moved():
        c.ok("CREATE TABLE IF NOT EXISTS churn(v BLOB); DELETE FROM churn; INSERT INTO churn VALUES (randomblob(500000))")
        return c.node_status(node)["checkpoint_lsn"] > 0
    c.wait(moved, 30, "a checkpoint of %s" % node)


@scenario(timeout_s=60)
def start_by_another_user_changes_nothing(c):
    """A database was emptied by a start under a user who could not read it."""
    if os.geteuid() != 0:
        c.ctx.skip("needs root to become another user")
    c.ok("CREATE TABLE keep(v); INSERT INTO keep VALUES (7)")
    c.wait_converged()
    c.stop()
    before = contents(c.data_dir)
    os.chmod(c.ctx.directory, 0o755)
    done = subprocess.run([c.supervisor_bin, "run", "--data-dir", c.data_dir], stdin=subprocess.DEVNULL, timeout=30,
                          capture_output=True, text=True, env=c.environment(), user=65534, group=65534, check=False)
    assert done.returncode in (1, 2) and done.stderr.strip(), (done.returncode, done.stderr)
    assert contents(c.data_dir) == before
    c.start()
    assert c.query("SELECT v FROM keep").value == 7


@scenario(timeout_s=60, settings=SMALL_LOG, quick=False)
def long_reader_holds_up_neither_writes_nor_the_checkpoints_after_it(c):
    """Checkpoints that wait for readers, with the writers waiting for them, froze whole applications."""
    c.ok("CREATE TABLE r(i, t)")
    c.ok("INSERT INTO r WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) "
         "SELECT i, hex(randomblob(200)) FROM n")
    master = c.master()
    with socket.create_connection(("127.0.0.1", c.port), timeout=60 * c.ctx.slow) as s:
        body = b'{"sql":"SELECT i, t FROM r ORDER BY i","timeout_ms":60000}'
        s.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (c.token.encode(), len(body), body))
        begun = s.recv(1000)  # the snapshot is pinned now; the rest does not fit into the sockets' buffers
        assert b" 200 " in begun, begun
        for _ in range(12):
            c.ok("UPDATE r SET t = hex(randomblob(200)) WHERE i % 4 = 0", timeout_ms=20000)
        held = c.node_status(master)["checkpoint_lsn"]
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            begun = begun[-200:] + piece
    assert b'"row_count":20000' in begun and b'"status":"ok"' in begun, begun[-200:]
    c.wait(lambda: c.ok("UPDATE r SET t = hex(randomblob(200)) WHERE i % 4 = 1") and
           c.node_status(master)["checkpoint_lsn"] > held, 30, "a checkpoint after the reader")
    c.wait_converged()


@scenario(timeout_s=60)
def requests_that_are_undone_leave_all_nodes_equal(c):
    """Rollbacks after constraint errors, of savepoints, of what had spilled already, and VACUUM stopped replication."""
    c.ok("CREATE TABLE u(id INTEGER PRIMARY KEY, v TEXT UNIQUE CHECK (v <> 'bad')); INSERT INTO u(v) VALUES ('one')")
    c.ok("CREATE VIRTUAL TABLE words USING fts5(t)")
    c.ok("CREATE TABLE seen(v); CREATE TRIGGER u_seen AFTER INSERT ON u BEGIN INSERT INTO seen VALUES (new.v); END")
    many = "INSERT INTO u(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000) SELECT %s FROM n"
    stop, fine = threading.Event(), []

    def others():
        i = 0
        while not stop.is_set():
            i += 1
            fine.append(c.query("INSERT INTO u(v) VALUES (?)", ["other %d" % i]).ok)
    beside = threading.Thread(target=others)
    beside.start()
    try:
        for verb in ("ABORT", "ROLLBACK", "FAIL"):
            c.query("INSERT OR %s INTO u(v) VALUES ('x %s'), ('one')" % (verb, verb)).must_fail(409, "CONSTRAINT")
        c.query("INSERT INTO words VALUES ('two'); INSERT INTO u(v) VALUES ('two'), ('bad')").must_fail(409, "CONSTRAINT")
        # Larger than SQLite's cache when the last statement fails.
        c.query(statements=[{"sql": many % "hex(randomblob(800))"}, {"sql": "INSERT INTO u(v) VALUES ('one')"}],
                timeout_ms=30000).must_fail(409, "CONSTRAINT")
        c.query(many % "nullif(hex(randomblob(800)), CASE i WHEN 3000 THEN abs(-9223372036854775807 - 1) END)",
                timeout_ms=30000).must_fail(400, "SQL_ERROR")
    finally:
        stop.set()
        beside.join()
    c.ok("INSERT INTO words VALUES ('two'); INSERT INTO u(v) VALUES ('two')")
    c.ok("VACUUM", timeout_ms=30000)
    assert fine and all(fine), "%d of %d requests beside them failed" % (fine.count(False), len(fine))
    c.wait_converged()
    c.check_integrity()
    for node in ("node1", "node2", "node3"):
        rows = c.query("SELECT count(DISTINCT v), (SELECT count(*) FROM seen) FROM u", node=node, consistency="session",
                       min_lsn=c.node_status(c.master())["applied_lsn"]).rows
        assert rows == [[len(fine) + 2, len(fine) + 1]], (node, rows, len(fine))
        found = c.query("SELECT count(*) FROM words WHERE words MATCH 'two'", node=node, consistency="stale").value
        assert found == 1, (node, found)


@scenario(timeout_s=60, settings=SMALL_LOG, replicas=1)
def journal_lying_beside_the_database_is_not_played_back(c):
    """Journals and logs of SQLite's own, left by a crash or a tool, were played back into a newer database."""
    checkpointed(c, "node1")
    c.ok("CREATE TABLE keep(v); INSERT INTO keep VALUES (7)")
    before = c.wait_converged()
    c.stop()
    place = os.path.join(c.data_dir, "node1")
    scratch = os.path.join(c.ctx.directory, "scratch.db")
    shutil.copy(os.path.join(place, "main.db"), scratch)
    db = sqlite3.connect(scratch, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN IMMEDIATE")
    db.execute("CREATE TABLE junk AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000) "
               "SELECT randomblob(100) AS v FROM n")
    assert os.path.getsize(scratch + "-journal") > 512, "no hot journal came into being"
    for suffix in ("-journal", "-wal"):
        shutil.copy(scratch + "-journal", os.path.join(place, "main.db" + suffix))
    db.close()
    c.start()
    after = c.wait_converged()
    assert after[0] >= before[0], (before, after)
    assert c.query("SELECT v FROM keep").value == 7
    c.check_integrity()


@scenario(timeout_s=60, settings=SMALL_LOG)
def base_file_written_by_another_program_is_replaced(c):
    """A replica's file was opened by a plain driver and written to; from then on it was another database."""
    checkpointed(c, "node3")
    c.ok("CREATE TABLE keep(v); INSERT INTO keep VALUES (7)")
    checkpointed(c, "node3")
    if c.master() == "node3":
        assert c.command("switchover", "--to", "node1").returncode == 0
    c.wait_converged()
    c.stop()
    db = sqlite3.connect(os.path.join(c.data_dir, "node3", "main.db"))
    db.execute("PRAGMA user_version = 77")
    db.execute("CREATE TABLE foreigner(v)")
    db.commit()
    db.close()
    c.start(all_up=False)
    c.wait_writable()
    c.wait_all_up(30)
    c.wait_converged(30)
    c.check_integrity()
    for node in ("node1", "node2", "node3"):
        assert c.query("PRAGMA user_version", node=node, consistency="stale").value == 0, node
        assert c.query("SELECT v FROM keep", node=node, consistency="stale").value == 7, node


@scenario(timeout_s=60)
def looking_changes_nothing(c):
    """A command that only lists took the leader's lock away."""
    c.ok("CREATE TABLE keep(v)")
    c.wait_converged()
    before, terms = c.status(), contents(c.data_dir)
    for _ in range(20):
        assert c.command("status").returncode == 0
        assert c.command("status", "--json").returncode == 0
        for node in ("node1", "node2", "node3"):
            for path in ("/status", "/metrics", "/ready", "/health"):
                assert c.client(node).request("GET", path).http == 200
    c.kill("supervisor")
    assert c.command("status").returncode == 3
    c.start_supervisor()
    after = c.wait_all_up()
    for key in ("term", "master", "failovers"):
        assert after[key] == before[key], (key, before[key], after[key])
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]
    now = contents(c.data_dir)
    # Where the nodes were seen last, and the tries of the disks, are written asked or not.
    changed = [p for p in set(terms) | set(now)
               if terms.get(p) != now.get(p) and "/wal/" not in p and p != "supervisor.positions" and not p.endswith("/probe")]
    assert not changed, changed


@scenario(timeout_s=60, cases={"in_front": (0,), "behind": (-1,)}, quick=("behind",))
def lagging_replica_is_not_promoted(c, which):
    """Hours of writes were lost to the promotion of a replica that lagged."""
    load = Load(c, writers=4)
    load.wait_more(20)
    c.wait_all_up()
    late = c.last_replicas[which]
    master_pid, late_pid = c.last_pids[c.last_master], c.last_pids[late]
    supervisor = c.freeze("supervisor")  # so that the dead stay dead
    os.kill(late_pid, signal.SIGKILL)
    load.wait_more(100)
    os.kill(master_pid, signal.SIGKILL)
    c.thaw(supervisor)
    load.wait_more(30, 30)
    assert c.status()["master"] != late
    load.stop()
    c.wait_all_up(30)
    load.verify()
    c.wait_converged(30)


@scenario(timeout_s=60)
def node_started_by_hand_serves_no_write(c):
    """Returning primaries took writes before anybody had told them that they are none any more."""
    c.ok("CREATE TABLE h(v); INSERT INTO h VALUES (1)")
    c.wait_converged()
    c.kill_all()
    with ByHand(c, "grizzly-replica", "node1"):
        c.query("INSERT INTO h VALUES (2)", node="node1", timeout_ms=500).must_fail(503, "NO_MASTER")
        c.query("SELECT v FROM h", node="node1", timeout_ms=500).must_fail(503, "NO_MASTER")
    c.start()
    assert c.query("SELECT group_concat(v) FROM h").value == "1"


@scenario(timeout_s=60)
def master_started_by_hand_acknowledges_nothing(c):
    """Not even one that is told to be master: nobody gives it a quorum, and what it wrote is cut when it returns."""
    c.ok("CREATE TABLE h(v); INSERT INTO h VALUES (1)")
    c.wait_converged()
    term = c.status()["term"]
    c.kill_all()
    with ByHand(c, "grizzly-master", "node1", "--term", str(term + 1)):
        assert not c.query("INSERT INTO h VALUES (2)", node="node1", timeout_ms=800).ok
        assert not c.query("SELECT v FROM h", node="node1", timeout_ms=500).ok
    c.start()
    rows = c.query("SELECT v FROM h ORDER BY v").rows
    assert rows in ([[1]], [[1], [2]]), rows  # "may still be committed" is what the second was told
    c.wait_converged()


@scenario(timeout_s=90, settings=SMALL_LOG)
def rebuilt_replica_catches_up_though_writes_outrun_the_log_that_is_kept(c):
    """A buffer's limit cut the replica off while it loaded its copy; it began again, for ever."""
    c.ok("CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB)")
    for _ in range(10):
        c.ok("INSERT INTO big(v) VALUES (randomblob(1000000))")
    node = c.replicas()[-1]
    stop, written = threading.Event(), []

    def churn():
        while not stop.is_set():
            written.append(c.query("UPDATE big SET v = randomblob(1000000) WHERE id = ?", [len(written) % 10 + 1],
                                   timeout_ms=20000).ok)
            time.sleep(0.01)
    writer = threading.Thread(target=churn)
    writer.start()
    try:
        pid = c.pid(node)
        supervisor = c.freeze("supervisor")
        os.kill(pid, signal.SIGKILL)
        shutil.rmtree(os.path.join(c.data_dir, node))
        c.thaw(supervisor)
        c.wait(lambda: c.node(node)["pid"] not in (None, pid) and c.node(node)["state"] == "up", 60, "the rebuilt replica")
    finally:
        stop.set()
        writer.join()
    assert written and all(written), "%d of %d writes failed" % (written.count(False), len(written))
    c.wait_converged(30)
    logs = ""
    for n in ("node1", "node2", "node3"):
        with open(os.path.join(c.data_dir, "log", n + ".log"), errors="replace") as f:
            logs += f.read()
    sent = logs.count("%s is sent a snapshot" % node)
    assert 1 <= sent <= 2, "%d snapshots were sent" % sent
    c.ctx.note("%d writes of 1 MB beside it, %d snapshot" % (len(written), sent))


@scenario(timeout_s=60)
def request_forwarded_to_a_frozen_master_is_answered_by_its_successor(c):
    """Elsewhere it hung for the client's full time-out though a new leader had served for long."""
    c.ok("CREATE TABLE fw(v); INSERT INTO fw VALUES (7)")
    c.wait_all_up()
    old, node = c.last_master, c.last_replicas[0]
    frozen = c.freeze_pid(c.last_pids[old])
    started = time.monotonic()
    answer = c.query("SELECT v FROM fw", node=node, timeout_ms=60000)
    took = time.monotonic() - started
    assert answer.value == 7 and answer.json["node"] != old, answer.text
    assert took < 20 * c.ctx.slow, "%.1f s" % took
    c.ctx.note("answered after %.0f ms" % (took * 1000))
    c.thaw(frozen)


@scenario(timeout_s=60)
def many_writers_meet_no_busy_database(c):
    """Writers that contend for a lock got SQLITE_BUSY, and were slower together than one alone."""
    c.ok("CREATE TABLE n(w INTEGER PRIMARY KEY, v INTEGER)")
    c.ok("INSERT INTO n WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM s WHERE i < 31) SELECT i, 0 FROM s")
    failed = []

    def write(w):
        client = c.client(keep_alive=True)
        for _ in range(20):
            answer = client.query("UPDATE n SET v = v + 1 WHERE w = ?", [w])
            if not answer.ok:
                failed.append(answer.text)
        client.close()
    threads = [threading.Thread(target=write, args=(w,)) for w in range(32)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[:3]
    assert c.query("SELECT min(v) || ' ' || max(v) FROM n").value == "20 20"


@scenario(timeout_s=60, cases={"killed": (True,), "frozen": (False,)})
def dead_replica_holds_up_no_other(c, killed):
    """Dialling a dead node under a lock slowed the link to every living one."""
    c.ok("CREATE TABLE d(v)")
    c.wait_all_up()
    pid = c.last_pids[c.last_replicas[0]]
    supervisor = c.freeze("supervisor")
    if killed:
        os.kill(pid, signal.SIGKILL)
    else:
        c.freeze_pid(pid)
    client = c.client(keep_alive=True)
    for i in range(300):  # each of them with less time than one look at the dead would take
        client.query("INSERT INTO d VALUES (?)", [i], timeout_ms=1000 * c.ctx.slow).must()
    client.close()
    c.thaw(supervisor)
    c.thaw(pid)
    c.wait_all_up(30)
    c.wait_converged()


@scenario(timeout_s=60)
def error_is_never_answered_with_status_200(c):
    """Followers answered 200 with an error in the body while there was no leader: writes lost, taken for done."""
    c.ok("CREATE TABLE e(v)")
    c.wait_all_up()
    pids, replicas, master = dict(c.last_pids), list(c.last_replicas), c.last_master
    supervisor = c.freeze("supervisor")
    os.kill(pids[master], signal.SIGKILL)
    c.wait(lambda: not alive(pids[master]), 10, "the master's end")
    for node in replicas:
        for sql, more in (("INSERT INTO e VALUES (1)", {}), ("SELECT * FROM e", {}), ("SELECT * FROM nowhere", {}),
                          ("SELECT * FROM e", {"consistency": "session", "min_lsn": 1 << 40}), ("SELEC", {})):
            answer = c.query(sql, node=node, timeout_ms=300, **more)
            assert not answer.ok and answer.http >= 400 and answer.json["status"] == "error", (sql, answer.text)
    c.thaw(supervisor)
    c.wait_writable()


def newer_slot(slot):
    """The slot of a slot file (common/base/slotfile.c) as a later format would begin it."""
    hasher = ctypes.CDLL("libxxhash.so.0")
    hasher.XXH3_64bits.restype = hasher.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    hasher.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    hasher.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    length = struct.unpack("<I", slot[4:8])[0]
    head = b"GzS2" + slot[4:16]
    seed = hasher.XXH3_64bits(head, 16)
    return head + struct.pack("<Q", hasher.XXH3_64bits_withSeed(slot[24:24 + length], length, seed)) + slot[24:]


@scenario(replicas=2, timeout_s=60)
def files_of_a_newer_version_are_refused_and_left_alone(c):
    """A node that was run by a newer program before: it says so, and nothing is set aside or made anew."""
    c.ok("CREATE TABLE t(a)")
    c.wait_converged()
    victim = c.replicas()[0]
    c.stop()
    path = os.path.join(c.data_dir, victim, "store.meta")
    with open(path, "rb") as f:
        good = f.read()
    assert good[:4] == b"GzS1", good[:4]
    with open(path, "r+b") as f:
        f.write(newer_slot(good[:4096]))
    with open(path, "rb") as f:
        before = f.read()
    c.start(all_up=False)
    said = c.wait(lambda: next((n["last_end"] for n in c.status()["nodes"]
                                if n["id"] == victim and "newer version" in (n["last_end"] or "")), None),
                  20, "the node to say why it does not start")
    assert "exit code 2" in said and "store.meta" in said and "format 2, this program knows 1" in said, said
    c.wait_writable()
    with open(path, "rb") as f:
        assert f.read() == before
    assert not os.path.exists(os.path.join(c.data_dir, victim + ".damaged")), "it was taken for damage"
    with open(path, "wb") as f:
        f.write(good)
    c.wait_all_up()
    c.wait_converged()
