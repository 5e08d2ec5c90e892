"""Backups: whole, consistent, ordinary SQLite files, taken while the cluster works; and what goes wrong is clean."""
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request

from client import raw_exchange
from cluster import ByHand
from harness import scenario
from load import Load

ACCOUNTS, EACH = 50, 1000


def open_bank(c):
    c.ok("CREATE TABLE bank(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, pad BLOB)")
    c.ok("INSERT INTO bank WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
         "SELECT i, %d, randomblob(3000) FROM n" % (ACCOUNTS, EACH))


class Transfers:
    """Clients that move money: the sum stays the same in every state that was ever committed."""

    def __init__(self, c, clients=3):
        self.c, self.stopping, self.done, self.failed = c, threading.Event(), 0, 0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, seed):
        client, n = self.c.client(timeout_s=20, keep_alive=True), seed
        while not self.stopping.is_set():
            n += 7
            a, b = n % ACCOUNTS + 1, (n * 13 + 5) % ACCOUNTS + 1
            try:
                answer = client.query(statements=[
                    {"sql": "UPDATE bank SET balance = balance - 3 WHERE id = ?", "params": [a]},
                    {"sql": "UPDATE bank SET balance = balance + 3, pad = randomblob(3000) WHERE id = ?",
                     "params": [b]}])
            except OSError:
                self.failed += 1
                continue
            self.done += answer.ok
            self.failed += not answer.ok

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join()


def info_of(path):
    with open(path + ".json") as f:
        return json.load(f)


def look_into(path, sql):
    """With the plain library, and without writing a byte."""
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def check_copy(path):
    assert look_into(path, "PRAGMA integrity_check") == [("ok",)], path
    assert os.path.getsize(path) == info_of(path)["size_bytes"]


def back_up(c, path, *options):
    done = c.command("backup", "--to", path, *options)
    assert done.returncode == 0, done.stderr
    return done


def leftovers(ctx, name):
    return sorted(f for f in os.listdir(ctx.directory) if f.startswith(name))


@scenario(timeout_s=90)
def copies_under_concurrent_transfers_are_consistent(c):
    open_bank(c)
    transfers = Transfers(c)
    lsns = []
    for i, options in enumerate([[], ["--node", "node1"], ["--node", "node2"], ["--node", "node3", "--progress"]]):
        path = os.path.join(c.ctx.directory, "copy%d" % i)
        done = back_up(c, path, *options)
        check_copy(path)
        assert look_into(path, "SELECT count(*), sum(balance) FROM bank") == [(ACCOUNTS, ACCOUNTS * EACH)]
        info = info_of(path)
        assert "lsn=%d term=%d" % (info["lsn"], info["term"]) in done.stdout, done.stdout
        assert info["cluster"] == c.config["cluster"] and info["time_us"] > 1.6e15, info
        assert ("backup 100% " in done.stderr) == ("--progress" in options), done.stderr
        lsns.append(info["lsn"])
    transfers.stop()
    assert transfers.done > 20 and transfers.failed == 0, (transfers.done, transfers.failed)
    assert lsns == sorted(lsns) and lsns[0] > 1, lsns
    c.wait_converged()
    path = os.path.join(c.ctx.directory, "last")
    back_up(c, path)
    assert info_of(path)["node"] in c.replicas(), "a replica that has all was to be asked"
    info, status = info_of(path), c.node_status(c.master())
    assert (info["lsn"], info["db_checksum"]) == (status["committed_lsn"], status["db_checksum"])


@scenario(timeout_s=60)
def files_that_exist_are_replaced_only_by_force(c):
    c.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    path = os.path.join(c.ctx.directory, "copy")
    with open(path, "w") as f:
        f.write("precious")
    done = c.command("backup", "--to", path)
    assert done.returncode == 1 and "--force" in done.stderr, done.stderr
    with open(path) as f:
        assert f.read() == "precious"
    back_up(c, path, "--force")
    c.wait_converged()
    c.ok("INSERT INTO t VALUES (2)")
    c.wait_converged()
    back_up(c, path, "--force")
    assert look_into(path, "SELECT count(*) FROM t") == [(2,)]
    assert leftovers(c.ctx, "copy") == ["copy", "copy.json"]
    assert c.command("backup").returncode == 2
    done = c.command("backup", "--to", path + "2", "--node", "node9")
    assert done.returncode == 2 and "node9" in done.stderr, done.stderr
    done = c.command("backup", "--to", os.path.join(c.ctx.directory, "no", "where"))
    assert done.returncode == 1 and "no/where" in done.stderr, done.stderr


@scenario(timeout_s=60)
def only_who_has_the_token_gets_a_copy(c):
    c.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    c.wait_converged()
    for token in (None, "wrong", c.token + "x", c.token[:-1]):
        for node in (None, "node1", "node2"):
            answer = c.client(node).request("GET", "/backup", token=token)
            answer.must_fail(401, "UNAUTHORIZED")
            assert b"SQLite" not in answer.body
    c.client().request("POST", "/backup", body="{}").must_fail(405, "METHOD_NOT_ALLOWED")
    stranger = os.path.join(c.ctx.directory, "stranger")  # who knows the ports and has a token of his own
    os.mkdir(stranger)
    shutil.copy(os.path.join(c.data_dir, "cluster.json"), stranger)
    with open(os.path.join(stranger, "token"), "w") as f:
        f.write("f" * 64 + "\n")
    path = os.path.join(c.ctx.directory, "copy")
    done = subprocess.run([c.supervisor_bin, "backup", "--data-dir", stranger, "--to", path], capture_output=True,
                          text=True, env=c.environment(), timeout=60 * c.ctx.slow, check=False)
    assert done.returncode == 3 and "401" in done.stderr, (done.returncode, done.stderr)
    assert leftovers(c.ctx, "copy") == []


@scenario(timeout_s=60)
def curl_takes_the_same_copy(c):
    """The answer's length is announced, so a client knows a broken one."""
    open_bank(c)
    c.wait_converged()
    answer = c.client("node2").request("GET", "/backup")
    assert answer.http == 200 and int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.headers["Grizzly-Cluster"] == c.config["cluster"]
    path = os.path.join(c.ctx.directory, "copy")
    with open(path, "wb") as f:
        f.write(answer.body)
    assert look_into(path, "PRAGMA integrity_check") == [("ok",)]
    assert look_into(path, "SELECT sum(balance) FROM bank") == [(ACCOUNTS * EACH,)]
    # A kept-alive connection goes on, HTTP/1.0 ends with the body.
    client = c.client("node2", keep_alive=True)
    assert client.request("GET", "/backup").body == answer.body
    assert client.request("GET", "/health").http == 200
    old = raw_exchange("127.0.0.1", c.node_port("node2"),
                       [b"GET /backup HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n" % c.token.encode()])
    assert old.endswith(answer.body) and b"chunked" not in old[:600].lower()


class SlowReader:
    """A client that has begun to take a backup and takes no more."""

    def __init__(self, c, node):
        request = urllib.request.Request("http://127.0.0.1:%d/backup" % c.node_port(node),
                                         headers={"Authorization": "Bearer " + c.token})
        self.answer = urllib.request.urlopen(request, timeout=60)
        self.first = self.answer.read(4096)

    def close(self):
        self.answer.close()


def fill(c, megabytes):
    c.ok("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, v BLOB)")
    for _ in range(megabytes):
        c.ok("INSERT INTO big(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10) "
             "SELECT randomblob(100000) FROM n", timeout_ms=60000)


@scenario(timeout_s=90)
def slow_clients_hold_up_nobody_and_are_limited(c):
    fill(c, 20)
    c.wait_converged()
    first, second = SlowReader(c, "node2"), SlowReader(c, "node2")
    c.client("node2").request("GET", "/backup").must_fail(429, "OVERLOADED")
    for i in range(50):
        c.ok("INSERT INTO big(v) VALUES (randomblob(1000))")
    first.close()
    lsn = int(second.answer.headers["Grizzly-Lsn"])
    body = second.first + second.answer.read()  # the rest, of the same moment
    assert len(body) == int(second.answer.headers["Content-Length"])
    second.close()
    path = os.path.join(c.ctx.directory, "slow")
    with open(path, "wb") as f:
        f.write(body)
    assert look_into(path, "PRAGMA integrity_check") == [("ok",)]
    assert look_into(path, "SELECT count(*) FROM big") == [(200,)]
    assert lsn < c.node_status("node2")["committed_lsn"]
    c.wait(lambda: c.client("node2").request("GET", "/backup").http == 200, 10, "a place for another backup")


def start_backup(c, path, *options):
    return subprocess.Popen([c.supervisor_bin, "backup", "--data-dir", c.data_dir, "--to", path, *options],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=c.environment())


def begin_and_freeze(c, path, *options):
    """Stops the command when it has written some of the copy and not all. One that was too quick is asked again."""
    size = c.node_status("node1")["db_size_bytes"]
    for _ in range(20):
        process = start_backup(c, path, *options)
        c.wait(lambda: process.poll() is not None or os.path.getsize(path + ".partial") > 0, 20, "the copy to begin",
               interval_s=0.0002)
        process.send_signal(signal.SIGSTOP)
        try:
            if os.path.getsize(path + ".partial") < size - (1 << 20):
                return process
        except FileNotFoundError:
            pass
        process.send_signal(signal.SIGCONT)
        process.communicate()
        os.unlink(path)
        os.unlink(path + ".json")
    raise AssertionError("no copy could be stopped on its way")


@scenario(timeout_s=90)
def killed_node_breaks_the_copy_cleanly_or_another_takes_over(c):
    fill(c, 60)
    c.wait_converged()
    path = os.path.join(c.ctx.directory, "copy")
    process = begin_and_freeze(c, path, "--node", "node2")
    c.kill("node2")
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=40 * c.ctx.slow)
    assert process.returncode == 1 and "node2" in err and out == "", (process.returncode, out, err)
    assert leftovers(c.ctx, "copy") == []
    # Without --node it begins again with another one, whoever was asked first.
    c.wait_all_up()
    c.wait_converged()
    process = begin_and_freeze(c, path)
    for node in c.replicas():
        c.kill(node)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=40 * c.ctx.slow)
    assert process.returncode == 0 and "begins again with" in err, (process.returncode, out, err)
    check_copy(path)
    assert look_into(path, "SELECT count(*) FROM big") == [(600,)]


@scenario(timeout_s=60)
def replica_that_just_restarted_gives_no_copy(c):
    """It shows its last checkpoint, here an empty database, until it hears from a master."""
    fill(c, 2)
    c.wait_converged()
    node = c.replicas()[0]
    c.kill_all()
    with ByHand(c, "grizzly-replica", node):
        c.client(node).request("GET", "/backup").must_fail(503, "NO_MASTER")
    c.start()
    path = os.path.join(c.ctx.directory, "copy")
    c.wait_converged()
    done = c.command("backup", "--to", path, "--node", node)
    assert done.returncode == 0, done.stderr
    check_copy(path)


@scenario(timeout_s=90)
def failover_does_not_disturb_a_copy_from_a_replica(c):
    fill(c, 40)
    open_bank(c)
    c.wait_converged()
    node = c.replicas()[0]
    transfers = Transfers(c)
    path = os.path.join(c.ctx.directory, "copy")
    process = begin_and_freeze(c, path, "--node", node)
    c.kill(c.master())
    done = transfers.done
    c.wait(lambda: transfers.done > done + 10, 20, "transfers after the failover")
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=40 * c.ctx.slow)
    transfers.stop()
    assert process.returncode == 0, (process.returncode, out, err)
    check_copy(path)
    assert look_into(path, "SELECT count(*), sum(balance) FROM bank") == [(ACCOUNTS, ACCOUNTS * EACH)]


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@scenario(timeout_s=60)
def full_target_leaves_nothing_behind(c):
    fill(c, 5)
    c.wait_converged()
    path = os.path.join(c.ctx.directory, "copy")
    done = subprocess.run([c.supervisor_bin, "backup", "--data-dir", c.data_dir, "--to", path], capture_output=True,
                          text=True, env=c.environment(), preexec_fn=limit_file_size, check=False)
    assert done.returncode == 1 and "cannot write" in done.stderr, (done.returncode, done.stderr)
    assert leftovers(c.ctx, "copy") == []
    place = os.path.join(c.ctx.directory, "small")
    os.mkdir(place)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "grizzly-test", place],
                                           check=False, capture_output=True).returncode != 0:
        return c.ctx.note("no small tmpfs")
    done = c.command("backup", "--to", os.path.join(place, "copy"))
    assert done.returncode == 1 and "No space" in done.stderr, (done.returncode, done.stderr)
    assert os.listdir(place) == []


@scenario(timeout_s=60)
def offline_copies_hold_what_was_acknowledged(c):
    load = Load(c, writers=2)
    load.wait_more(50)
    c.kill_all()
    load.stop()
    path = os.path.join(c.ctx.directory, "copy")
    done = c.command("backup", "--to", path)
    assert done.returncode == 3 and "no node can be asked" in done.stderr, (done.returncode, done.stderr)
    back_up(c, path, "--offline")
    check_copy(path)
    found = {row[0] for row in look_into(path, "SELECT k FROM load")}
    assert set(load.acked) <= found, "acknowledged rows are missing"
    back_up(c, path + "1", "--offline", "--node", "node1")
    done = c.command("backup", "--to", path + "2", "--offline", "--node", "node7")
    assert done.returncode == 2, (done.returncode, done.stderr)
    c.start()
    done = c.command("backup", "--to", path + "2", "--offline")
    assert done.returncode == 1 and "supervisor runs" in done.stderr, (done.returncode, done.stderr)
    c.stop()
