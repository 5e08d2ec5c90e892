"""A backup, or any SQLite file, becomes a cluster of its own; with archived log, at any point that was archived."""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time

from harness import scenario
from test_backup import back_up, check_copy, fill, info_of, look_into


def restore(c, source, *options):
    """Into the (empty) data directory of c, which has not been started; the settings are c's."""
    path = os.path.join(c.ctx.directory, "settings-%d.json" % c.port)
    shutil.move(os.path.join(c.data_dir, "cluster.json"), path)
    return c.command("restore", "--from", source, "--config", path, *options)


def restored(c, source, *options, **more):
    """A new cluster from source, started."""
    fresh = c.ctx.cluster(**more)
    done = restore(fresh, source, *options)
    assert done.returncode == 0, done.stderr
    fresh.start()
    fresh.wait_converged()
    return fresh, done.stdout


def refused(c, source, *options):
    fresh = c.ctx.cluster(replicas=0)
    done = restore(fresh, source, *options)
    assert done.returncode in (1, 2) and done.stdout == "", (done.returncode, done.stdout)
    assert os.listdir(fresh.data_dir) == [], "a refused restore left something: %s" % os.listdir(fresh.data_dir)
    assert not os.path.exists(fresh.data_dir + ".restoring")
    assert not re.search(r"Sanitizer|runtime error", done.stderr), done.stderr
    return done.stderr


def file_in(c, name, *statements):
    path = os.path.join(c.ctx.directory, name)
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()
    return path


@scenario(timeout_s=120)
def backup_becomes_a_cluster_of_its_own(c):
    fill(c, 5)
    c.ok("CREATE TABLE t(a TEXT PRIMARY KEY, b REAL); INSERT INTO t VALUES ('x', 1.5), ('y', 2.5)")
    c.wait_converged()
    path = os.path.join(c.ctx.directory, "copy")
    back_up(c, path)
    c.ok("INSERT INTO t VALUES ('later', 0)")
    fresh, said = restored(c, path)
    info = info_of(path)
    assert "lsn=%d" % info["lsn"] in said, said
    for node in ("node1", "node2", "node3"):
        assert fresh.query("SELECT a, b FROM t", node=node, consistency="stale").rows == [["x", 1.5], ["y", 2.5]]
        assert fresh.query("SELECT count(*) FROM big", node=node, consistency="stale").value == 50
    status = fresh.status()
    assert status["cluster"] != c.config["cluster"] and status["term"] == 2, status
    assert fresh.ok("INSERT INTO t VALUES ('new', 3)")["lsn"] > info["lsn"]
    fresh.check_integrity()
    fresh.kill(fresh.master())
    fresh.wait_writable()
    assert fresh.query("SELECT count(*) FROM t").value == 3
    # Its own backups go on from there, and the old cluster does not know of it.
    back_up(fresh, path + "2")
    check_copy(path + "2")
    assert info_of(path + "2")["cluster"] == status["cluster"]
    assert c.query("SELECT count(*) FROM t").value == 3
    fresh.stop()
    fresh.start()
    assert fresh.query("SELECT count(*) FROM t").value == 3


@scenario(timeout_s=60)
def nodes_of_the_old_cluster_do_not_fit_the_new_one(c):
    c.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    c.wait_converged()
    path = os.path.join(c.ctx.directory, "copy")
    back_up(c, path)
    c.stop()
    fresh, _ = restored(c, path)
    fresh.stop()
    shutil.rmtree(os.path.join(fresh.data_dir, "node2"))
    shutil.copytree(os.path.join(c.data_dir, "node2"), os.path.join(fresh.data_dir, "node2"))
    fresh.start_supervisor()
    fresh.wait_ready()
    fresh.wait(lambda: "belongs to another cluster" in open(os.path.join(fresh.data_dir, "log", "node2.log")).read(),
               20, "the stranger to be refused")
    assert fresh.query("SELECT a FROM t").value == 1
    fresh.stop()


@scenario(start=False, timeout_s=90)
def ordinary_sqlite_files_are_taken(ctx):
    c = ctx.cluster(replicas=0)
    ddl = ("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'one'), (2, x'00ff'), (3, 2.5)",
           "CREATE INDEX i ON t(v)", "PRAGMA user_version=42")
    plain = file_in(c, "plain.db", "PRAGMA page_size=4096", *ddl)
    small = file_in(c, "small.db", "PRAGMA page_size=1024", *ddl)
    wal = file_in(c, "wal.db", "PRAGMA page_size=8192", "PRAGMA journal_mode=wal", *ddl)
    before = open(small, "rb").read()
    for path, replicas in ((plain, 2), (small, 1), (wal, 0)):
        fresh, said = restored(c, path, replicas=replicas)
        assert "lsn=1 time=unknown" in said, said
        assert fresh.query("SELECT id, v FROM t ORDER BY id").rows == [[1, "one"], [2, {"$blob": "AP8="}], [3, 2.5]]
        assert fresh.query("PRAGMA user_version").value == 42
        fresh.ok("INSERT INTO t(v) VALUES ('four')")
        fresh.check_integrity()
        fresh.stop()
    assert open(small, "rb").read() == before


@scenario(start=False, timeout_s=60)
def what_cannot_be_restored_is_refused_and_leaves_nothing(ctx):
    c = ctx.cluster(replicas=0)
    c.start()
    c.ok("CREATE TABLE t(a); INSERT INTO t VALUES (randomblob(200000))")
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    # A data directory that is in use, or holds anything.
    done = c.command("restore", "--from", path)
    assert done.returncode == 1 and "not empty" in done.stderr, done.stderr
    assert c.query("SELECT count(*) FROM t").value == 1
    assert "No such file" in refused(c, path + ".none")
    with open(path + ".text", "w") as f:
        f.write("not a database, but long enough to be taken for one at first sight. " * 9)
    assert "not a SQLite database" in refused(c, path + ".text")
    open(path + ".empty", "w").close()
    assert "not a SQLite database" in refused(c, path + ".empty")

    def changed(name, change):
        shutil.copy(path, os.path.join(ctx.directory, name))
        shutil.copy(path + ".json", os.path.join(ctx.directory, name + ".json"))
        change(os.path.join(ctx.directory, name))
        return os.path.join(ctx.directory, name)

    def flip(name):
        with open(name, "r+b") as f:
            f.seek(3 * 4096 + 100)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 1]))

    assert "not the database that" in refused(c, changed("flipped", flip))
    assert "not the database that" in refused(c, changed("short", lambda n: os.truncate(n, os.path.getsize(n) - 4096)))
    assert "no number of pages" in refused(c, changed("torn", lambda n: os.truncate(n, 5000)))
    assert "damaged" in refused(c, changed("badinfo", lambda n: open(n + ".json", "w").write("{")))
    info = dict(info_of(path), format=2)
    assert "format 2" in refused(c, changed("later", lambda n: json.dump(info, open(n + ".json", "w"))))
    # Without FILE.json it is an ordinary file: SQLite says what it thinks of it.
    broken = changed("broken", lambda n: os.truncate(n, 8192))
    os.unlink(broken + ".json")
    assert "cannot restore" in refused(c, broken)
    for words, text in ((["--to-lsn", "5"], "--archive"), (["--archive", "x"], "--archive"),
                        (["--archive", "x", "--to-lsn", "5", "--to-end"], "--archive"),
                        (["--archive", "x", "--to-time", "yesterday"], "to-time"),
                        (["--archive", "x", "--to-lsn", "-5"], "to-lsn")):
        assert text in refused(c, path, *words)
    assert c.command("restore").returncode == 2


@scenario(start=False, timeout_s=60)
def interrupted_restore_leaves_no_data_directory(ctx):
    c = ctx.cluster(replicas=0)
    c.start()
    fill(c, 60)
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    fresh = ctx.cluster(replicas=2)
    os.unlink(os.path.join(fresh.data_dir, "cluster.json"))
    words = [fresh.supervisor_bin, "restore", "--data-dir", fresh.data_dir, "--from", path, "--http-port",
             str(fresh.port)]
    process = subprocess.Popen(words, env=fresh.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fresh.wait(lambda: os.path.exists(fresh.data_dir + ".restoring/node1.incoming/main.db"), 20, "the restore to begin",
               interval_s=0.0005)
    process.kill()
    process.wait()
    assert os.listdir(fresh.data_dir) == []
    done = subprocess.run(words, env=fresh.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh.start()
    assert fresh.query("SELECT count(*) FROM big").value == 600
    assert look_into(path, "SELECT count(*) FROM big") == [(600,)]


# ---- archived log

def archiving(ctx, **more):
    settings = {"archive": {"dir": os.path.join(ctx.directory, "archive"), "interval_ms": 100}}
    for key, value in more.pop("settings", {}).items():
        settings[key] = value
    c = ctx.cluster(settings=settings, **more)
    c.archive = settings["archive"]["dir"]
    return c


def pieces(c):
    """[(first LSN, last LSN, path)] of what was archived, in order."""
    directory = os.path.join(c.archive, c.config["cluster"])
    found = [n for n in os.listdir(directory) if n.endswith(".gza")] if os.path.isdir(directory) else []
    return [(int(n[:20]), int(n[21:41]), os.path.join(directory, n)) for n in sorted(found)]


def wait_archived(c, lsn):
    c.wait(lambda: any(last >= lsn for _, last, _ in pieces(c)), 20, "LSN %d to be archived" % lsn)


class History:
    """What the table held at each LSN, and at moments between."""

    def __init__(self, c):
        self.c = c
        self.at_lsn, self.at_time = {}, []
        self.rows = []
        lsn = c.ok("CREATE TABLE h(n INTEGER, v TEXT)")["lsn"]
        self.note(lsn)

    def note(self, lsn):
        self.at_lsn[lsn] = list(self.rows)
        time.sleep(0.002)
        self.at_time.append((time.time(), lsn))
        time.sleep(0.002)

    def write(self, count):
        for _ in range(count):
            n = len(self.at_lsn)
            if n % 5 == 4:
                lsn = self.c.ok("DELETE FROM h WHERE n %% 3 = %d" % (n % 3))["lsn"]
                self.rows = [r for r in self.rows if r[0] % 3 != n % 3]
            else:
                lsn = self.c.ok("INSERT INTO h VALUES (?, ?)", [n, "v" * (n * 37 % 3000)])["lsn"]
                self.rows.append((n, "v" * (n * 37 % 3000)))
            self.note(lsn)

    def check(self, source, lsn):
        """A restored data directory, by its node's file: no cluster is needed to look."""
        path = os.path.join(source, "node1", "main.db")
        assert look_into(path, "PRAGMA integrity_check") == [("ok",)]
        assert look_into(path, "SELECT n, v FROM h ORDER BY n") == sorted(self.at_lsn[lsn]), lsn


def restore_to(c, source, name, *goal):
    """Into a directory of one node; the finished command and the directory."""
    directory = os.path.join(c.ctx.directory, name)
    done = subprocess.run([c.supervisor_bin, "restore", "--data-dir", directory, "--from", source, "--archive", c.archive,
                           "--replicas", "0", *map(str, goal)], capture_output=True, text=True, env=c.environment(),
                          stdin=subprocess.DEVNULL, check=False)
    return done, directory


def must_restore(c, source, name, *goal):
    done, directory = restore_to(c, source, name, *goal)
    assert done.returncode == 0, (goal, done.stderr)
    return directory


def must_fail(c, source, *goal):
    done, directory = restore_to(c, source, "refused", *goal)
    assert done.returncode in (1, 2), (goal, done.stdout)
    assert not os.path.exists(directory) and not os.path.exists(directory + ".restoring")
    return done.stderr


@scenario(start=False, timeout_s=180)
def any_archived_point_is_restored_also_across_failovers(ctx):
    c = archiving(ctx)
    c.start()
    history = History(c)
    history.write(6)
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path, "--node", c.master())
    base = info_of(path)["lsn"]
    for kind in ("kill", "switchover", "kill"):
        history.write(6)
        if kind == "kill":
            c.kill(c.master())
        else:
            assert c.command("switchover").returncode == 0
        c.wait_writable()
        c.wait_all_up()
    history.write(6)
    last = max(history.at_lsn)
    wait_archived(c, last)
    lsns = [lsn for lsn in sorted(history.at_lsn) if lsn >= base]
    assert len(lsns) > 20, lsns
    for i, lsn in enumerate(lsns[::4] + [last]):
        history.check(must_restore(c, path, "lsn%d" % i, "--to-lsn", lsn), lsn)
    moments = [m for m in history.at_time if m[1] >= base and m[1] < last]
    for i, (moment, lsn) in enumerate(moments[1::5]):
        history.check(must_restore(c, path, "time%d" % i, "--to-time", "%.6f" % moment), lsn)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moments[3][0])) + "%.6fZ" % (moments[3][0] % 1)
    text = text[:19] + text[20:]  # the seconds' leading 0 of the fraction
    history.check(must_restore(c, path, "rfc3339", "--to-time", text), moments[3][1])
    history.check(must_restore(c, path, "end", "--to-end"), last)
    assert "before LSN" in must_fail(c, path, "--to-lsn", last + 1000)
    assert "ends at LSN" in must_fail(c, path, "--to-time", "%.6f" % (time.time() + 5))
    assert "later than" in must_fail(c, path, "--to-lsn", base - 1)
    assert "later time" in must_fail(c, path, "--to-time", "1000000000")
    # What was restored is a cluster that archives its own history beside the old one's.
    fresh = archiving(ctx, replicas=1)
    shutil.rmtree(fresh.archive + ".none", ignore_errors=True)
    done = restore(fresh, path, "--archive", c.archive, "--to-lsn", str(lsns[3]))
    assert done.returncode == 0, done.stderr
    fresh.start()
    fresh.config["cluster"] = fresh.status()["cluster"]
    assert fresh.query("SELECT count(*) FROM h").value == len(history.at_lsn[lsns[3]])
    wait_archived(fresh, fresh.ok("DELETE FROM h")["lsn"])
    assert fresh.config["cluster"] != c.config["cluster"]
    fresh.stop()
    # A stop leaves nothing behind that is not archived.
    lsn = c.ok("INSERT INTO h VALUES (-1, 'the last')")["lsn"]
    c.stop()
    assert pieces(c)[-1][1] >= lsn
    directory = must_restore(c, path, "stopped", "--to-lsn", lsn)
    assert look_into(os.path.join(directory, "node1", "main.db"), "SELECT v FROM h WHERE n = -1") == [("the last",)]


@scenario(start=False, timeout_s=90)
def damage_and_holes_in_the_archive_are_named(ctx):
    c = archiving(ctx, replicas=0)
    c.start()
    history = History(c)
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    for _ in range(4):
        history.write(3)
        wait_archived(c, max(history.at_lsn))
    c.stop()
    last = max(history.at_lsn)
    base = info_of(path)["lsn"]
    files = [p for p in pieces(c) if p[1] > base]
    assert len(files) >= 3, files
    history.check(must_restore(c, path, "whole", "--to-lsn", last), last)
    first_lsn, last_lsn, victim = files[1]
    with open(victim, "rb") as f:
        good = f.read()

    def with_bytes(data):
        with open(victim, "wb") as f:
            f.write(data)
        return must_fail(c, path, "--to-lsn", last)

    for at in (3, 30, 50, 72, 80 + 8, 80 + 48, len(good) // 2, len(good) - 1):
        said = with_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1:])
        assert os.path.basename(victim) in said and "LSN" in said, (at, said)
    for data in (good[:-1], good[:40], b"", good + b"\0" * 8):
        said = with_bytes(data)
        assert os.path.basename(victim) in said and "LSN" in said, said
    # Another file's content under its name, and its own content as another cluster's.
    with open(files[0][2], "rb") as f:
        assert os.path.basename(victim) in with_bytes(f.read())
    os.unlink(victim)
    said = must_fail(c, path, "--to-lsn", last)
    assert "lacks the records %d to %d" % (first_lsn, last_lsn) in said and os.path.basename(files[2][2]) in said, said
    assert "lacks the records" in must_fail(c, path, "--to-end")
    assert "lacks the records" in must_fail(c, path, "--to-time", "%.6f" % (history.at_time[-1][0]))
    lsn = max(n for n in history.at_lsn if n < first_lsn)  # what lies before it can still be had
    history.check(must_restore(c, path, "before", "--to-lsn", lsn), lsn)
    with open(victim, "wb") as f:
        f.write(good)
    history.check(must_restore(c, path, "again", "--to-lsn", last), last)
    assert "No such file" in must_fail(c, path, "--to-lsn", last, "--archive", c.archive + ".none")
    os.unlink(path + ".json")
    assert ".json\" is missing" in must_fail(c, path, "--to-lsn", last)


@scenario(start=False, timeout_s=90)
def backup_of_another_history_is_refused(ctx):
    """Two clusters with one identity cannot be; should they, the chain of checksums tells them apart."""
    c = archiving(ctx, replicas=0)
    c.start()
    c.ok("CREATE TABLE t(a)")
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    lsn = c.ok("INSERT INTO t VALUES (1)")["lsn"]
    wait_archived(c, lsn)
    c.stop()
    info = info_of(path)
    info["record_checksum"] = "%016x" % (int(info["record_checksum"], 16) ^ 1)
    with open(path + ".json", "w") as f:
        json.dump(info, f)
    assert "another history" in must_fail(c, path, "--to-lsn", lsn)


@scenario(start=False, timeout_s=90)
def full_archive_holds_up_no_write_and_is_caught_up_with(ctx):
    c = archiving(ctx)
    place = c.archive
    os.mkdir(place)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "grizzly-test", place],
                                           check=False, capture_output=True).returncode != 0:
        ctx.skip("needs root to mount a small tmpfs")
    c.start()
    history = History(c)
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    c.ok("CREATE TABLE big(v)")
    for _ in range(10):
        c.ok("INSERT INTO big VALUES (randomblob(60000))")

    def failing():
        archive = c.node_status(c.master())["archive"]
        return "space" in archive.get("error", "") and archive["lag_ms"] > 0
    c.wait(failing, 20, "the status to say that the archive is full")
    history.write(5)
    assert subprocess.run(["mount", "-o", "remount,size=64m", place], check=False).returncode == 0
    wait_archived(c, max(history.at_lsn))
    assert not [n for n in os.listdir(os.path.dirname(pieces(c)[0][2])) if not n.endswith(".gza")]
    c.wait(lambda: "error" not in c.node_status(c.master())["archive"], 10, "the status to be fine again")
    history.check(must_restore(c, path, "caught-up", "--to-lsn", max(history.at_lsn)), max(history.at_lsn))


@scenario(start=False, timeout_s=90)
def hole_in_the_archive_is_said_and_a_new_backup_goes_on_behind_it(ctx):
    c = archiving(ctx, replicas=1, settings={
        "store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 1 << 20},
        "log": {"keep_bytes": 2 << 20, "max_bytes": 64 << 20}})
    c.start()
    history = History(c)
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    history.write(4)
    before = max(history.at_lsn)
    wait_archived(c, before)
    c.stop()
    archive = c.config.pop("archive")
    c.write_config()
    c.start()
    c.ok("CREATE TABLE churn(v); INSERT INTO churn VALUES (x'')")
    for _ in range(24):
        c.ok("UPDATE churn SET v = randomblob(500000)")
    c.wait(lambda: all(c.node_status(n)["first_lsn"] > before + 5 for n in ("node1", "node2")), 20, "the log to be trimmed")
    c.stop()
    c.config["archive"] = archive
    c.write_config()
    c.start()
    behind = c.wait(lambda: c.node_status(c.master())["archive"].get("hole_before_lsn"), 20, "the hole to be said")
    assert behind > before + 1, (behind, before)
    back_up(c, path + "2")
    history.write(4)
    last = max(history.at_lsn)
    wait_archived(c, last)
    said = must_fail(c, path, "--to-lsn", last)
    assert "lacks the records %d to" % (max(p[1] for p in pieces(c) if p[1] < behind) + 1) in said, said
    history.check(must_restore(c, path, "before-the-hole", "--to-lsn", before), before)
    history.check(must_restore(c, path + "2", "behind-the-hole", "--to-lsn", last), last)


@scenario(start=False, timeout_s=90)
def records_that_a_failover_drops_leave_the_archive(ctx):
    """Only durability "async" can lose what was committed; the archive follows the cluster, and says so."""
    c = archiving(ctx, settings={"durability": "async"})
    c.start()
    history = History(c)
    path = os.path.join(ctx.directory, "copy")
    history.write(3)
    c.wait_converged()
    back_up(c, path)
    wait_archived(c, max(history.at_lsn))
    master, others = c.master(), c.replicas()
    supervisor = c.freeze("supervisor")
    for node in others:
        os.kill(c.last_pids[node], 9)
    lost = c.ok("INSERT INTO h VALUES (-1, 'only the master has it')")["lsn"]
    wait_archived(c, lost)
    directory = must_restore(c, path, "with", "--to-lsn", lost)
    assert look_into(os.path.join(directory, "node1", "main.db"), "SELECT count(*) FROM h WHERE n = -1") == [(1,)]
    c.freeze_pid(c.last_pids[master])
    shutil.move(os.path.join(c.data_dir, master), os.path.join(ctx.directory, "lost"))
    os.kill(c.last_pids[master], 9)
    c.thaw(supervisor)
    c.wait_writable()
    assert c.master() != master
    assert c.query("SELECT count(*) FROM h WHERE n = -1").value == 0
    history.write(3)
    last = max(history.at_lsn)
    wait_archived(c, last)
    c.wait(lambda: c.node_status(c.master())["archive"]["archived_lsn"] >= last, 20, "the new history to be archived")
    names = os.listdir(os.path.join(c.archive, c.config["cluster"]))
    assert any(n.endswith(".superseded") for n in names), names
    history.check(must_restore(c, path, "without", "--to-lsn", last), last)
    history.check(must_restore(c, path, "to-the-end", "--to-end"), last)


@scenario(start=False, timeout_s=60)
def database_without_a_table_can_be_backed_up_and_restored(ctx):
    c = ctx.cluster(replicas=1)
    c.start()
    c.wait_converged()
    path = os.path.join(ctx.directory, "copy")
    back_up(c, path)
    assert info_of(path)["size_bytes"] == os.path.getsize(path) == 0
    assert look_into(path, "PRAGMA integrity_check") == [("ok",)]
    fresh, _ = restored(c, path, replicas=1)
    fresh.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    fresh.wait_converged()
    fresh.check_integrity()
