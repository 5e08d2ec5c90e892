"""Replicas: equal to the byte, readable at a stated staleness, and a door for requests meant for the master."""
import os
import signal
import threading
import time

from harness import scenario
from load import Load

SHARED = {"replicas": 2}


@scenario(shared=True)
def replicas_are_equal_after_load(c):
    load = Load(c, writers=6, name="equal")
    load.wait_more(400)
    load.stop()
    lsn, committed, checksum = c.wait_converged()
    assert lsn == committed > 0 and checksum
    assert not load.errors, load.errors
    for node in (None, "node1", "node2", "node3"):
        load.verify(node, consistency="stale") if node else load.verify()


@scenario(shared=True)
def replicas_are_equal_after_ddl_updates_deletes_and_vacuum(c):
    c.ok("DROP TABLE IF EXISTS v; CREATE TABLE v(a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX v_b ON v(b)")
    c.ok("INSERT INTO v(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) "
         "SELECT hex(randomblob(50)) FROM n")
    c.ok("UPDATE v SET b = lower(b) WHERE a % 3 = 0; DELETE FROM v WHERE a % 2; ALTER TABLE v ADD COLUMN x DEFAULT 7")
    c.ok("VACUUM")
    c.ok("DROP INDEX v_b; CREATE VIEW w AS SELECT count(*) AS n FROM v; CREATE TRIGGER tr AFTER INSERT ON v BEGIN "
         "UPDATE v SET x = 8 WHERE a = new.a; END; INSERT INTO v(a, b) VALUES (-1, 'last')")
    c.wait_converged()
    for node in c.replicas():
        assert c.query("SELECT n FROM w", node=node, consistency="stale").value == 10001
        assert c.query("SELECT x FROM v WHERE a = -1", node=node, consistency="stale").value == 8
    c.ok("DROP VIEW w; DROP TABLE v")


@scenario(shared=True)
def transaction_larger_than_many_messages_arrives_whole(c):
    c.ok("DROP TABLE IF EXISTS big; CREATE TABLE big(v BLOB)")
    c.ok("INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 40) "
         "SELECT randomblob(1000000) FROM n", timeout_ms=60000)
    c.wait_converged(40)
    for node in c.replicas():
        assert c.query("SELECT sum(length(v)) FROM big", node=node, consistency="stale").value == 40000000
    c.ok("DROP TABLE big")


@scenario(shared=True)
def session_reads_see_what_their_session_wrote(c):
    c.ok("DROP TABLE IF EXISTS s; CREATE TABLE s(v)")
    clients = [c.client(n, keep_alive=True) for n in c.replicas()]
    writer = c.client(keep_alive=True)
    for i in range(100):
        lsn = writer.query("INSERT INTO s VALUES (?)", [i]).must()["lsn"]
        answer = clients[i % 2].query("SELECT max(v) FROM s", consistency="session", min_lsn=lsn).must()
        assert answer["rows"] == [[i]] and answer["lsn"] >= lsn, (i, answer)
        assert answer["node"] != c.master() if i == 0 else True, answer


@scenario(shared=True)
def session_reads_of_the_future_time_out(c):
    node = c.replicas()[0]
    lsn = c.node_status(node)["applied_lsn"]
    c.query("SELECT 1", node=node, consistency="session", min_lsn=lsn + 1000000, timeout_ms=300).must_fail(
        504, "TIMEOUT")


@scenario(shared=True)
def stale_reads_are_answered_by_the_replica_itself(c):
    for node in c.replicas():
        answer = c.ok("SELECT 1", node=node, consistency="stale")
        assert answer["node"] == node, answer


@scenario(shared=True)
def linearizable_reads_on_a_replica_are_forwarded(c):
    c.ok("DROP TABLE IF EXISTS f; CREATE TABLE f(v)")
    master = c.master()
    clients = [c.client(n, keep_alive=True) for n in c.replicas()]
    for i in range(50):
        c.ok("DELETE FROM f; INSERT INTO f VALUES (%d)" % i)
        answer = clients[i % 2].query("SELECT v FROM f").must()
        assert answer["rows"] == [[i]] and answer["node"] == master, (i, answer)


@scenario(shared=True)
def writes_on_a_replica_are_forwarded(c):
    c.ok("DROP TABLE IF EXISTS f; CREATE TABLE f(id INTEGER PRIMARY KEY, v UNIQUE)")
    master = c.master()
    for node in c.replicas():
        answer = c.ok("INSERT INTO f(v) VALUES (?)", [node], node=node)
        assert (answer["rows_affected"], answer["node"]) == (1, master), answer
        c.query("INSERT INTO f(v) VALUES (?)", [node], node=node).must_fail(409, "CONSTRAINT")
        c.query("INSERT INTO nowhere VALUES (1)", node=node).must_fail(400, "SQL_ERROR")
        c.query("ATTACH 'x' AS y", node=node).must_fail(403, "FORBIDDEN")
        rows = c.ok(statements=[{"sql": "INSERT INTO f(v) VALUES (?) RETURNING id", "params": [node + "+"]}], node=node)
        assert len(rows["results"][0]["rows"]) == 1, rows
    assert c.query("SELECT count(*) FROM f").value == 4


@scenario(shared=True)
def forwarding_keeps_the_token_rule(c):
    node = c.replicas()[0]
    for body in ('{"sql":"CREATE TABLE nope(x)"}', '{"sql":"SELECT 1"}'):
        c.client(node).request("POST", "/query", body, token=None).must_fail(401, "UNAUTHORIZED")
        c.client(node).request("POST", "/query", body, token="wrong").must_fail(401, "UNAUTHORIZED")
    in_body = '{"sql":"SELECT 5","token":"%s"}' % c.token
    assert c.client(node).request("POST", "/query", in_body, token=None).value == 5


@scenario(shared=True)
def forwarded_streams_arrive_whole(c):
    sql = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 200000) "
           "SELECT i, 'some text that fills the buffers' FROM n")
    answer = c.query(sql, node=c.replicas()[0])
    assert answer.ok and len(answer.json["rows"]) == 200000


@scenario(shared=True)
def stale_reads_beyond_their_lag_are_not_answered_with_old_rows(c):
    """A replica cut off from its master must not pretend to be fresh."""
    node = c.replicas()[0]
    assert c.query("SELECT 1", node=node, consistency="stale", max_lag_ms=60000).value == 1


@scenario(timeout_s=60)
def replica_that_lags_refuses_or_forwards_bounded_reads(c):
    """With the master frozen and nobody to replace it, the lag grows: max_lag_ms must be honoured."""
    c.ok("CREATE TABLE l(v); INSERT INTO l VALUES (1)")
    c.wait_converged()
    node, master = c.replicas()[0], c.master()
    stopped = [c.freeze("supervisor"), c.freeze_pid(c.last_pids[master])]
    try:
        time.sleep(1.0)
        answer = c.query("SELECT v FROM l", node=node, consistency="stale", max_lag_ms=200, timeout_ms=1000)
        assert not answer.ok and answer.http in (503, 504), answer.text
        assert c.query("SELECT v FROM l", node=node, consistency="stale").value == 1
    finally:
        for pid in stopped:
            c.thaw(pid)


@scenario(timeout_s=90)
def frozen_replica_holds_up_nobody_and_catches_up(c):
    load = Load(c, writers=4)
    load.wait_more(50)
    node = c.replicas()[0]
    pid = c.freeze(node)
    load.wait_more(300)
    c.thaw(pid)
    load.stop()
    assert not load.errors, load.errors
    load.verify()
    c.wait_all_up()
    c.wait_converged()


@scenario(timeout_s=90)
def killed_replica_is_restarted_and_catches_up(c):
    load = Load(c, writers=4)
    load.wait_more(50)
    for node in c.replicas():
        old = c.kill(node)
        load.wait_more(100)
        c.wait(lambda: c.node(node)["state"] == "up" and c.node(node)["pid"] != old, 20, "%s to be back" % node)
    load.stop()
    assert not load.errors, load.errors
    assert c.status()["failovers"] == 0
    load.verify()
    c.wait_converged()
    c.check_integrity()
    assert all(n["restarts"] >= 1 for n in c.status()["nodes"] if n["id"] != c.master()), c.status()


@scenario(timeout_s=120, settings={"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 2 << 20,
                                             "keep_bytes": 4 << 20}})
def replica_far_behind_gets_a_snapshot(c):
    """More log than is kept passes while a replica stands still: only a whole copy can bring it back."""
    c.ok("CREATE TABLE far(v BLOB)")
    node = c.replicas()[0]
    supervisor = c.freeze("supervisor")
    pid = c.freeze_pid(c.last_pids[node])
    for _ in range(40):
        c.ok("INSERT INTO far VALUES (randomblob(400000)); DELETE FROM far WHERE rowid < (SELECT max(rowid) FROM far)")
    c.thaw(supervisor)
    c.thaw(pid)
    c.wait_converged(40)
    assert c.query("SELECT count(*) FROM far", node=node, consistency="stale").value == 1


@scenario(timeout_s=120)
def replica_that_lost_its_directory_is_rebuilt(c):
    import shutil
    load = Load(c, writers=2)
    load.wait_more(100)
    node = c.replicas()[1]
    directory = os.path.join(c.data_dir, node)
    pid = c.pid(node)
    c.freeze("supervisor")
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory)
    c.thaw(c.supervisor.pid)
    load.wait_more(50)
    load.stop()
    load.verify()
    c.wait_all_up()
    c.wait_converged()
    load.verify(node, consistency="stale")


@scenario(timeout_s=90, start=False)
def damaged_replica_resyncs_from_the_master(ctx):
    """Bytes flipped in a stopped replica's base file or log must never be served."""
    c = ctx.cluster(replicas=2, settings={"store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 1 << 20}})
    c.start()
    c.ok("CREATE TABLE d(v BLOB)")
    for _ in range(10):
        c.ok("INSERT INTO d VALUES (randomblob(300000))")
    c.wait_converged()
    node = c.replicas()[0]
    c.stop()
    directory = os.path.join(c.data_dir, node)
    damaged = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".wal") and os.path.getsize(path) > 300000:
                with open(path, "r+b") as f:
                    f.seek(200000)
                    old = f.read(64)
                    f.seek(200000)
                    f.write(bytes(b ^ 0x5a for b in old))
                damaged += 1
    assert damaged, "no log segment found to damage"
    c.start(deadline_s=15)
    c.wait_converged(40)
    assert c.query("SELECT count(*), sum(length(v)) FROM d", node=node, consistency="stale").rows == [[10, 3000000]]


@scenario(timeout_s=60, replicas=0)
def single_node_serves_reads_and_durable_writes(c):
    load = Load(c, writers=4)
    load.wait_more(200)
    c.kill(c.master())
    load.wait_more(50)
    load.stop()
    assert load.refused == 0, load.errors
    load.verify()
    assert len(c.status()["nodes"]) == 1


@scenario(timeout_s=60, settings={"durability": "all"})
def durability_all_waits_for_every_node(c):
    c.ok("CREATE TABLE a(v)")
    lsn = c.ok("INSERT INTO a VALUES (1)")["lsn"]
    for node in ("node1", "node2", "node3"):
        assert c.node_status(node)["durable_lsn"] >= lsn


@scenario(timeout_s=60, settings={"durability": "async", "commit_timeout_ms": 1000})
def durability_async_answers_without_replicas(c):
    c.ok("CREATE TABLE a(v)")
    c.freeze("supervisor")
    frozen = [c.freeze_pid(c.last_pids[n]) for n in c.last_replicas]
    for i in range(20):
        c.ok("INSERT INTO a VALUES (?)", [i])
    for pid in frozen + [c.supervisor.pid]:
        c.thaw(pid)
    c.wait_converged()


@scenario(timeout_s=60, replicas=4)
def five_nodes_converge_and_survive_two_deaths(c):
    load = Load(c, writers=4)
    load.wait_more(100)
    victims = [c.master(), c.replicas()[0]]
    for v in victims:
        os.kill(c.last_pids[v], signal.SIGKILL)
    load.wait_more(100)
    load.stop()
    load.verify()
    c.wait_all_up()
    c.wait_converged()


@scenario(shared=True)
def concurrent_mixed_requests_on_all_ports(c):
    c.ok("DROP TABLE IF EXISTS m; CREATE TABLE m(node TEXT, i INTEGER)")
    errors = []

    def run(node):
        client = c.client(node, keep_alive=True)
        for i in range(60):
            try:
                lsn = client.query("INSERT INTO m VALUES (?, ?)", [str(node), i]).must()["lsn"]
                got = client.query("SELECT count(*) FROM m WHERE node = ?", [str(node)], consistency="session",
                                   min_lsn=lsn).value
                if got != i + 1:
                    errors.append((node, i, got))
            except Exception as e:  # collected for the assertion below
                errors.append(repr(e))
    threads = [threading.Thread(target=run, args=(n,)) for n in (None, "node1", "node2", "node3")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:5]
    assert c.query("SELECT count(*) FROM m").value == 240
