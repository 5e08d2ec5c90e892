"""Whatever is killed or frozen: what was acknowledged stays, once; clients wait instead of being refused."""
import itertools
import os
import signal
import socket
import threading
import time

from cluster import alive, tagged_pids
from harness import scenario
from load import Load

KILL, FREEZE = "killed", "frozen"


def hurt(c, target, how, pids):
    """Returns the pid when it was frozen. pids: {node id: pid} from before the first blow."""
    pid = c.supervisor.pid if target == "supervisor" else pids[target]
    if how == FREEZE:
        return c.freeze_pid(pid)
    os.kill(pid, signal.SIGKILL)
    if target == "supervisor":
        c.supervisor.wait()
        c.supervisor = None
    return None


def settle(c, load):
    """Ends the load and checks everything that must hold when all is well again."""
    load.wait_more(30)
    load.stop()
    c.wait_all_up(30)
    load.verify()
    c.wait_converged(30)
    for node in c.replicas():
        load.verify(node, consistency="stale")
    c.check_integrity()
    c.ctx.note("%d acked, %d unknown, longest gap %.0f ms" % (
        len(load.acked), len(load.unknown), load.longest_gap_ms()))


def takeover(c, how, keep_alive):
    load = Load(c, writers=6, keep_alive=keep_alive)
    load.wait_more(150)
    old = c.master()
    frozen = hurt(c, old, how, c.last_pids)
    load.wait_more(150)
    new = c.wait(lambda: c.status()["master"], 10, "a master in the status")
    assert new != old, "%s is master still" % new
    if frozen:
        c.thaw(frozen)
    settle(c, load)
    assert load.refused == 0, "connections were refused: %s" % load.errors
    assert c.status()["failovers"] == 1, c.status()
    gap = load.longest_gap_ms()
    budget = 1000 if how == KILL else 2000
    assert gap < budget * c.ctx.slow, "nothing was acknowledged for %.0f ms" % gap


@scenario(timeout_s=90, cases={"on_kept_connections": (True,), "on_fresh_connections": (False,)},
          quick=("on_fresh_connections",))
def killed_master_loses_no_acknowledged_insert(c, keep_alive):
    takeover(c, KILL, keep_alive)


@scenario(timeout_s=90, cases={"on_kept_connections": (True,), "on_fresh_connections": (False,)},
          quick=("on_kept_connections",))
def frozen_master_loses_no_acknowledged_insert(c, keep_alive):
    takeover(c, FREEZE, keep_alive)


@scenario(timeout_s=120, quick=False)
def five_failovers_in_a_row(c):
    load = Load(c, writers=4)
    for i in range(5):
        load.wait_more(40)
        c.wait_all_up()
        pid = c.last_pids[c.last_master]
        if i % 2:
            c.freeze_pid(pid)
        else:
            os.kill(pid, signal.SIGKILL)
        c.wait(lambda: c.status()["failovers"] == i + 1, 20, "failover %d" % (i + 1))
        c.thaw(pid) if alive(pid) else None
    settle(c, load)
    assert load.refused == 0, load.errors


@scenario(timeout_s=60)
def clients_that_connect_meanwhile_wait_and_are_served(c):
    """Connections made while there is no master queue and are answered by the successor."""
    c.ok("CREATE TABLE q(v)")
    pid = c.pid(c.master())
    supervisor = c.freeze("supervisor")
    os.kill(pid, signal.SIGKILL)
    results, errors = [], []

    def run(i):
        try:
            results.append(c.query("INSERT INTO q VALUES (?) RETURNING v", [i]).rows[0][0])
        except Exception as e:  # collected for the assertion below
            errors.append(repr(e))
    threads = [threading.Thread(target=run, args=(i,)) for i in range(50)]
    for t in threads:
        t.start()
    time.sleep(0.3)
    assert not results and not errors, (results, errors)
    c.thaw(supervisor)
    for t in threads:
        t.join()
    assert not errors and sorted(results) == list(range(50)), (errors[:3], len(results))


@scenario(timeout_s=60)
def old_master_returns_as_a_replica_and_catches_up(c):
    load = Load(c, writers=4)
    load.wait_more(50)
    old = c.master()
    c.kill(old)
    load.wait_more(50)
    c.wait(lambda: c.node(old)["state"] == "up" and c.node(old)["role"] == "replica", 20, "the old master's return")
    settle(c, load)
    assert c.node_status(old)["role"] == "replica"


@scenario(timeout_s=60)
def frozen_master_does_not_serve_when_it_wakes(c):
    """Requests lying in a frozen master's sockets are not acknowledged by it after its successor has begun."""
    c.ok("CREATE TABLE z(v)")
    old = c.master()
    with socket.create_connection(("127.0.0.1", c.node_port(old)), timeout=10) as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(4096)
        pid = c.freeze(old)
        body = b'{"sql":"INSERT INTO z VALUES (1)"}'
        s.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (
            c.token.encode(), len(body), body))
        c.wait(lambda: c.status()["master"] not in (None, old), 20, "a successor")
        c.thaw(pid)
        try:
            answer = s.recv(4096)
        except OSError:
            answer = b""
    assert b'"status":"ok"' not in answer, answer
    c.wait_writable()
    assert c.query("SELECT count(*) FROM z").value == 0


@scenario(timeout_s=60, cases={"killed": (KILL,), "frozen": (FREEZE,)})
def supervisor_gone_nodes_go_on_serving(c, how):
    load = Load(c, writers=4)
    load.wait_more(50)
    before = c.pids()
    frozen = hurt(c, "supervisor", how, before)
    load.wait_more(200)
    if frozen:
        time.sleep(1.0 * c.ctx.slow)  # longer than the heartbeat budget: its own pause is nobody's hang
        c.thaw(frozen)
    else:
        c.start_supervisor()
    c.wait_all_up()
    load.wait_more(50)
    assert c.pids() == before, "nodes were replaced: %s, then %s" % (before, c.pids())
    assert c.status()["failovers"] == 0
    settle(c, load)
    assert not load.errors, load.errors


@scenario(timeout_s=60)
def adopting_supervisor_watches_over_its_nodes(c):
    load = Load(c, writers=4)
    c.kill("supervisor")
    c.start_supervisor()
    c.wait_all_up()
    old = c.master()
    c.kill(old)
    c.wait(lambda: c.status()["master"] not in (None, old), 20, "a successor")
    settle(c, load)
    assert load.refused == 0, load.errors


@scenario(timeout_s=60)
def second_supervisor_of_a_directory_starts_nothing(c):
    before = c.pids()
    count = len(tagged_pids(c.ctx.directory))
    second = c.command("run", timeout_s=20)
    assert second.returncode in (0, 1), (second.returncode, second.stderr)
    assert "running" in second.stdout + second.stderr, (second.stdout, second.stderr)
    assert c.pids() == before and len(tagged_pids(c.ctx.directory)) == count


def two_at_once_cases():
    pairs = itertools.combinations(("master", "replica", "supervisor"), 2)
    return {"%s_%s_%s_%s" % (a, how_a, b, how_b): (a, how_a, b, how_b) for a, b in pairs
            for how_a in (KILL, FREEZE) for how_b in (KILL, FREEZE)}


@scenario(timeout_s=90, cases=two_at_once_cases(), quick=False)
def two_at_once(c, a, how_a, b, how_b):
    """Recovers by itself while a supervisor runs; a frozen one is woken, a killed one is started anew."""
    load = Load(c, writers=4)
    load.wait_more(60)
    c.wait_all_up()
    who = {"master": c.last_master, "replica": c.last_replicas[0], "supervisor": "supervisor"}
    pids = dict(c.last_pids)
    frozen = [hurt(c, who[a], how_a, pids), hurt(c, who[b], how_b, pids)]
    if b == "supervisor":
        time.sleep(0.5 * c.ctx.slow)
        if how_b == KILL:
            c.start_supervisor()
        else:
            c.thaw(frozen[1])
    load.wait_more(60, deadline_s=30)
    for pid in frozen:
        if pid:
            c.thaw(pid)
    settle(c, load)
    if b != "supervisor":
        assert load.refused == 0, load.errors


@scenario(timeout_s=90)
def replica_killed_during_the_failover_does_not_stop_it(c):
    load = Load(c, writers=4)
    load.wait_more(60)
    c.wait_all_up()
    os.kill(c.last_pids[c.last_master], signal.SIGKILL)
    os.kill(c.last_pids[c.last_replicas[1]], signal.SIGKILL)
    settle(c, load)
    assert load.refused == 0, load.errors


@scenario(timeout_s=90)
def all_nodes_killed_the_supervisor_brings_them_back(c):
    load = Load(c, writers=4)
    load.wait_more(60)
    c.wait_all_up()
    for pid in c.last_pids.values():
        os.kill(pid, signal.SIGKILL)
    load.wait_more(60, 30)
    settle(c, load)
    assert load.refused == 0, load.errors


@scenario(timeout_s=90)
def reads_on_replicas_go_on_without_a_master(c):
    c.ok("CREATE TABLE r(v); INSERT INTO r VALUES (1)")
    c.wait_converged()
    master_pid = c.last_pids[c.last_master]
    supervisor = c.freeze("supervisor")
    os.kill(master_pid, signal.SIGKILL)
    for node in c.last_replicas:
        assert c.query("SELECT v FROM r", node=node, consistency="stale").value == 1
        answer = c.query("INSERT INTO r VALUES (2)", node=node, timeout_ms=500)
        assert answer.http in (502, 503, 504), answer.text
    c.thaw(supervisor)
    c.wait_writable()


@scenario(timeout_s=90)
def writes_forwarded_by_a_replica_find_the_new_master(c):
    c.ok("CREATE TABLE fw(v)")
    node = c.replicas()[0]
    other = next(n for n in c.last_replicas if n != node)
    c.freeze(c.last_master)
    answer = c.query("INSERT INTO fw VALUES (1)", node=node, timeout_ms=10000)
    assert answer.ok or answer.http in (502, 503, 504), (other, answer.text)
    c.wait(lambda: c.query("INSERT INTO fw VALUES (2)", node=node, timeout_ms=3000).ok, 20, "a forwarded write")
    assert c.query("SELECT count(*) FROM fw WHERE v = 1").value <= 1
