"""Stopping and starting: in order, by kill -9 of everything, and in another place."""
import os
import stat
import subprocess

from cluster import alive
from harness import scenario
from load import Load


@scenario(timeout_s=60)
def orderly_stop_and_start_keeps_everything(c):
    load = Load(c, writers=4)
    load.wait_more(100)
    load.stop()
    lsn, _, checksum = c.wait_converged()
    token = c.token
    c.stop()
    c.start()
    assert c.token == token
    load.verify()
    after = c.wait_converged()
    assert after[0] >= lsn and checksum, (lsn, after)
    c.wait_writable()


@scenario(timeout_s=60)
def stop_under_load_loses_nothing_acknowledged(c):
    load = Load(c, writers=4)
    load.wait_more(50)
    c.stop()
    load.stop()
    c.start()
    load.verify()
    c.wait_converged()
    c.check_integrity()


@scenario(timeout_s=90)
def kill_of_everything_at_once_loses_nothing_acknowledged(c):
    load = Load(c, writers=6)
    for _ in range(3):
        load.wait_more(100)
        c.kill_all()
        c.start()
    load.wait_more(30)
    load.stop()
    load.verify()
    c.wait_converged()
    c.check_integrity()
    c.ctx.note("%d acked, %d unknown" % (len(load.acked), len(load.unknown)))


@scenario(timeout_s=90, replicas=0)
def kill_of_a_single_node_cluster_loses_nothing_acknowledged(c):
    load = Load(c, writers=4)
    for _ in range(3):
        load.wait_more(60)
        c.kill_all()
        c.start()
    load.stop()
    load.verify()


@scenario(timeout_s=60, quick=False)
def terms_never_go_back_over_restarts(c):
    terms = []
    for _ in range(3):
        terms.append(c.status()["term"])
        c.stop()
        c.start()
    terms.append(c.status()["term"])
    c.kill_all()
    c.start()
    terms.append(c.status()["term"])
    assert terms == sorted(terms), terms


@scenario(timeout_s=60)
def data_directory_may_move_between_stop_and_start(c):
    c.ok("CREATE TABLE m(v); INSERT INTO m VALUES (42)")
    c.wait_converged()
    c.stop()
    moved = os.path.join(c.ctx.directory, "another place")
    os.rename(c.data_dir, moved)
    c.data_dir = moved
    c.start()
    assert c.query("SELECT v FROM m").value == 42
    c.wait_writable()
    c.wait_converged()


@scenario(timeout_s=60, start=False, quick=("with_quotes", "long"), cases={
    "with_spaces": ("a b  c",), "with_umlauts": ("dätä 🐻",), "with_quotes": ("it's \"d\"",), "long": ("x" * 120,)})
def data_directory_names_may_be_strange(ctx, name):
    c = ctx.cluster(replicas=1, data_dir=os.path.join(ctx.directory, name))
    c.start()
    c.wait_writable()
    c.stop()


@scenario(timeout_s=60, start=False)
def relative_data_directory_works_from_elsewhere(ctx):
    c = ctx.cluster(replicas=1)
    c.supervisor = subprocess.Popen([c.supervisor_bin, "run", "--data-dir", os.path.basename(c.data_dir)],
                                    cwd=ctx.directory, env=c.environment(), stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    c.wait_ready()
    c.wait_all_up()
    c.kill(c.master())  # the restart must still find its directory
    c.wait_writable()
    c.stop()


@scenario(timeout_s=60)
def files_with_secrets_are_private(c):
    mode = stat.S_IMODE(os.stat(os.path.join(c.data_dir, "token")).st_mode)
    assert mode == 0o600, oct(mode)
    assert len(c.token) >= 16
    for pid in list(c.pids().values()) + [c.supervisor.pid]:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            assert c.token.encode() not in f.read(), "the token is on a command line"
    for path in c.ctx.logs():
        with open(path, errors="replace") as f:
            assert c.token not in f.read(), "the token is in %s" % path


@scenario(timeout_s=60, start=False)
def token_from_the_environment_is_used(ctx):
    c = ctx.cluster(replicas=0)
    environment = ctx.environment()
    environment["GRIZZLY_TOKEN"] = "a-token-of-my-own-choice"
    c.environment = lambda: environment
    c.start()
    answer = c.client().request("POST", "/query", '{"sql":"SELECT 1"}', token="a-token-of-my-own-choice")
    assert answer.value == 1
    assert c.token == "a-token-of-my-own-choice"


@scenario(timeout_s=60)
def stop_signals_end_everything_in_order(c):
    load = Load(c, writers=2)
    load.wait_more(20)
    load.stop()
    pids = c.pids()
    c.supervisor.terminate()
    assert c.supervisor.wait(timeout=20 * c.ctx.slow) == 0, c.supervisor.returncode
    c.supervisor = None
    c.wait(lambda: not any(alive(p) for p in pids.values()), 10, "the nodes to end")
    c.start()
    load.verify()


@scenario(timeout_s=90, start=False)
def database_grows_past_many_checkpoints_and_restarts(ctx):
    c = ctx.cluster(replicas=1, settings={"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 1 << 20,
                                                    "keep_bytes": 2 << 20}})
    c.start()
    c.ok("CREATE TABLE g(i INTEGER PRIMARY KEY, v BLOB)")
    for i in range(60):
        c.ok("INSERT INTO g(v) VALUES (randomblob(200000))")
        if i > 5:
            c.ok("UPDATE g SET v = zeroblob(100) WHERE i = ?", [i - 5])
    lsn, _, checksum = c.wait_converged()
    expected = c.query("SELECT count(*), sum(length(v)) FROM g").rows
    wal = sum(c.log_bytes(node) for node in c.pids())
    assert wal < 40 << 20, "%d bytes of log are kept" % wal
    c.kill_all()
    c.start()
    assert c.query("SELECT count(*), sum(length(v)) FROM g").rows == expected
    after = c.wait_converged()
    assert after[0] >= lsn and checksum
