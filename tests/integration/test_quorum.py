"""Without a quorum nothing is acknowledged, reads go on, and all is well when it returns."""
import os
import signal
import time

from cluster import alive
from harness import scenario
from load import Load

SETTINGS = {"commit_timeout_ms": 2000}


def lose_quorum(c):
    """Freezes the supervisor (or it would bring replicas back) and every replica; the pids."""
    c.wait_all_up()
    return [c.freeze("supervisor")] + [c.freeze_pid(c.last_pids[n]) for n in c.last_replicas]


@scenario(timeout_s=60, settings=SETTINGS)
def no_quorum_refuses_writes_serves_reads_and_recovers(c):
    c.ok("CREATE TABLE n(v); INSERT INTO n VALUES (1)")
    frozen = lose_quorum(c)
    started = time.monotonic()
    failed = c.query("INSERT INTO n VALUES (2)").must_fail(503, "NO_QUORUM")
    took = time.monotonic() - started
    assert 0.5 < took < 5 * c.ctx.slow, took
    assert any(w in failed["message"] for w in ("may still be committed", "not executed")), failed
    assert c.query("SELECT count(*) FROM n", consistency="stale").value == 1
    for pid in frozen:
        c.thaw(pid)
    c.wait_writable()
    assert c.query("SELECT count(*) FROM n WHERE v = 1").value == 1
    assert c.query("SELECT count(*) FROM n WHERE v = 2").value <= 1
    c.wait_all_up()
    c.wait_converged()


@scenario(timeout_s=60, settings=SETTINGS)
def linearizable_reads_without_a_quorum_never_show_unacknowledged_rows(c):
    c.ok("CREATE TABLE n(v)")
    frozen = lose_quorum(c)
    c.query("INSERT INTO n VALUES (1)").must_fail(503, "NO_QUORUM")
    answer = c.query("SELECT count(*) FROM n", timeout_ms=2000)
    assert (answer.ok and answer.value == 0) or answer.http in (503, 504), answer.text
    for pid in frozen:
        c.thaw(pid)
    c.wait_writable()


@scenario(timeout_s=90, settings=SETTINGS)
def load_through_lost_quorum_keeps_what_was_acknowledged(c):
    load = Load(c, writers=4)
    for _ in range(3):
        load.wait_more(60)
        frozen = lose_quorum(c)
        time.sleep(1.2)
        before = load.count()
        time.sleep(0.5)
        assert load.count() == before, "acknowledged without a quorum"
        for pid in frozen:
            c.thaw(pid)
    load.wait_more(60)
    load.stop()
    load.verify()
    c.wait_all_up()
    c.wait_converged()


@scenario(timeout_s=60, settings=SETTINGS)
def one_replica_back_is_quorum_enough(c):
    c.ok("CREATE TABLE n(v)")
    frozen = lose_quorum(c)
    c.query("INSERT INTO n VALUES (1)").must_fail(503, "NO_QUORUM")
    c.thaw(frozen[1])
    c.wait(lambda: c.query("INSERT INTO n VALUES (2)").ok, 10, "a write with two nodes of three")
    for pid in frozen:
        c.thaw(pid)


@scenario(timeout_s=60, settings=SETTINGS)
def replicas_killed_without_a_supervisor_then_all_is_restarted(c):
    c.ok("CREATE TABLE n(v); INSERT INTO n VALUES (1)")
    c.wait_all_up()
    pids, replicas = dict(c.last_pids), list(c.last_replicas)
    c.kill("supervisor")
    for node in replicas:
        os.kill(pids[node], signal.SIGKILL)
    c.query("INSERT INTO n VALUES (2)").must_fail(503, "NO_QUORUM")
    c.start_supervisor()
    c.wait_writable()
    c.wait_all_up()
    assert c.query("SELECT count(*) FROM n WHERE v = 1").value == 1
    c.wait_converged()


@scenario(timeout_s=90, settings=SETTINGS)
def deposed_master_cuts_what_was_never_committed(c):
    """A master writes records that no replica gets, dies, and rejoins after others went another way."""
    c.ok("CREATE TABLE n(v)")
    c.wait_converged()
    master = c.last_master
    frozen = lose_quorum(c)
    for i in range(3):
        c.query("INSERT INTO n VALUES (?)", [1000 + i], timeout_ms=900)
    os.kill(c.last_pids[master], signal.SIGKILL)
    for pid in frozen:
        c.thaw(pid)
    c.wait_writable()
    c.ok("INSERT INTO n VALUES (1)")
    c.wait_all_up()
    assert alive(c.pid(master))
    c.wait_converged()
    values = [r[0] for r in c.query("SELECT v FROM n ORDER BY v").rows]
    assert values.count(1) == 1 and len(values) == len(set(values)), values
