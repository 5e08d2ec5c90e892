"""A full disk: a clear refusal, reads go on, and writes work again once there is room."""
import os
import subprocess
import time

from harness import scenario
from load import Load

STORE = {"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 4 << 20, "keep_bytes": 4 << 20,
                   "low_space_bytes": 0}}  # no mark: the disk fills to its last byte


def small_disk(ctx, c, node, size_mb):
    """Mounts a small file system where the node keeps its data; removed with the scenario's directory."""
    if os.geteuid() != 0:
        ctx.skip("needs root to mount a small tmpfs")
    place = os.path.join(c.data_dir, node)
    os.makedirs(place, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm,mode=0700" % size_mb, "grizzly-test", place],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        ctx.skip("mount: " + done.stderr.strip())
    return place


def fill(place):
    path = os.path.join(place, "ballast")
    with open(path, "wb") as f:
        try:
            while True:
                f.write(b"\0" * 65536)
                f.flush()
        except OSError:
            pass
    return path


def write_until_refused(c):
    for i in range(400):
        answer = c.query("INSERT INTO f VALUES (randomblob(50000))", timeout_ms=5000)
        if not answer.ok:
            return i, answer
    raise AssertionError("400 writes of 50 kB were taken by a full disk")


@scenario(start=False, timeout_s=60)
def full_disk_of_a_single_node_refuses_writes_and_recovers(ctx):
    c = ctx.cluster(replicas=0, settings=STORE)
    place = small_disk(ctx, c, "node1", 48)
    c.start()
    c.ok("CREATE TABLE f(v BLOB); CREATE TABLE keep(v); INSERT INTO keep VALUES (1)")
    ballast = fill(place)
    written, answer = write_until_refused(c)
    assert answer.http >= 500 or answer.http == 413, answer.text
    assert any(word in answer.message.lower() for word in ("space", "full")), answer.text
    assert c.query("SELECT v FROM keep").value == 1
    assert c.query("SELECT count(*) FROM f").value == written
    os.unlink(ballast)
    c.wait(lambda: c.query("INSERT INTO keep VALUES (2)").ok, 20, "a write after room was made")
    assert c.query("SELECT count(*) FROM keep").value == 2
    assert c.query("SELECT count(*) FROM f").value == written
    c.stop()
    c.start()
    assert c.query("SELECT count(*) FROM f").value == written


@scenario(start=False, timeout_s=90)
def full_disk_of_a_replica_holds_up_nobody_and_recovers(ctx):
    c = ctx.cluster(replicas=2, settings=STORE)
    place = small_disk(ctx, c, "node3", 48)
    c.start()
    if c.master() == "node3":
        assert c.command("switchover", "--to", "node1").returncode == 0
    c.ok("CREATE TABLE f(v BLOB)")
    ballast = fill(place)
    for _ in range(100):
        c.ok("INSERT INTO f VALUES (randomblob(50000)); DELETE FROM f WHERE rowid < (SELECT max(rowid) FROM f)")
    os.unlink(ballast)
    c.wait_all_up(30)
    c.wait_converged(30)


@scenario(start=False, timeout_s=90)
def full_disk_of_a_master_with_replicas_loses_nothing(ctx):
    """It may refuse or hand over to a replica; what it acknowledged stays either way."""
    c = ctx.cluster(replicas=2, settings=STORE)
    place = small_disk(ctx, c, "node1", 48)
    c.start()
    if c.master() != "node1":
        assert c.command("switchover", "--to", "node1").returncode == 0
    load = Load(c, writers=2)
    load.wait_more(50)
    ballast = fill(place)
    c.ok("CREATE TABLE IF NOT EXISTS f(v BLOB)")
    for _ in range(60):
        c.query("INSERT INTO f VALUES (randomblob(100000)); DELETE FROM f", timeout_ms=3000)
    time.sleep(0.2)
    os.unlink(ballast)
    load.wait_more(50, 30)
    load.stop()
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)
