"""Writes with a request_id: sent again they change nothing and are answered as at first, whatever happened between."""
import http.client
import os
import signal
import socket
import threading
import urllib.parse

from cluster import alive, wait_until
from harness import scenario

SHARED = {"replicas": 2}
VARYING = ("time_ms", "node", "repeated")


def same(first, again):
    """again is first, said once more."""
    assert again.get("repeated") is True, again
    assert "repeated" not in first, first
    kept = [{k: v for k, v in a.items() if k not in VARYING} for a in (first, again)]
    assert kept[0] == kept[1], "first %r\nthen  %r" % (first, again)


def state(c, request_id, node=None):
    path = "/writes/" + urllib.parse.quote(request_id, safe="")
    return c.client(node).request("GET", path).must()


def table(c, name, columns="k TEXT"):
    c.ok("DROP TABLE IF EXISTS %s" % name)
    c.ok("CREATE TABLE %s(%s)" % (name, columns))


@scenario(shared=True)
def a_repeat_gets_the_first_answer(c):
    table(c, "once", "id INTEGER PRIMARY KEY, name TEXT, photo BLOB")
    requests = {
        "plain": {"sql": "INSERT INTO once(name) VALUES ('a'), ('b')"},
        "params": {"sql": "INSERT INTO once(name, photo) VALUES (?, ?)", "params": ["c", b"\x00\xff"]},
        "named": {"sql": "UPDATE once SET name = :n WHERE id = :i", "params": {"n": "d", "i": 1}},
        "returning": {"sql": "INSERT INTO once(name) VALUES (?) RETURNING id, name, photo", "params": ["e"]},
        "objects": {"sql": "DELETE FROM once WHERE id = 2 RETURNING *", "format": "objects"},
        "script": {"sql": "INSERT INTO once(name) VALUES ('f'); SELECT count(*) AS n FROM once"},
        "statements": {"statements": [{"sql": "INSERT INTO once(name) VALUES (?)", "params": ["g"]},
                                      {"sql": "SELECT name FROM once ORDER BY id DESC LIMIT 1"}]},
        "create": {"sql": "CREATE TABLE once_made(x)"},
        "drop": {"sql": "DROP TABLE once_made"},
        "no effect": {"sql": "DELETE FROM once WHERE id = -1"},
    }
    first = {k: c.ok(request_id="same " + k, **r) for k, r in requests.items()}
    count = c.query("SELECT count(*), sum(id) FROM once").rows
    for node in (None, *c.replicas()):
        for k, r in requests.items():
            same(first[k], c.ok(request_id="same " + k, node=node, **r))
            answer = state(c, "same " + k, node)
            assert answer == {"status": "ok", "request_id": "same " + k, "state": "committed",
                              "lsn": first[k]["lsn"]}, answer
    assert c.query("SELECT count(*), sum(id) FROM once").rows == count
    shuffled = dict(reversed(list(requests["named"]["params"].items())))
    same(first["named"], c.ok(requests["named"]["sql"], shuffled, request_id="same named", timeout_ms=9000))


@scenario(shared=True)
def the_same_id_for_another_request_is_an_error(c):
    table(c, "other")
    c.ok("INSERT INTO other VALUES (?)", ["x"], request_id="other")
    for request in ({"sql": "INSERT INTO other VALUES (?)", "params": ["y"]},
                    {"sql": "INSERT INTO other VALUES (?) ", "params": ["x"]},
                    {"sql": "INSERT INTO other VALUES (:a)", "params": {"a": "x"}},
                    {"sql": "INSERT INTO other VALUES (?)", "params": [b"x"]},
                    {"statements": [{"sql": "INSERT INTO other VALUES (?)", "params": ["x"]}]},
                    {"sql": "INSERT INTO other VALUES (?)", "params": ["x"], "format": "objects"}):
        error = c.query(request_id="other", **request).must_fail(400, "BAD_REQUEST")
        assert "another request" in error["message"], error
    assert c.query("SELECT count(*) FROM other").value == 1


@scenario(shared=True)
def what_failed_may_be_sent_again(c):
    table(c, "again", "k TEXT UNIQUE")
    c.ok("INSERT INTO again VALUES ('taken')")
    insert = {"sql": "INSERT INTO again VALUES ('new'); INSERT INTO again VALUES ('taken')", "request_id": "again"}
    c.query(**insert).must_fail(409, "CONSTRAINT")
    c.query("INSERT INTO nowhere VALUES (1)", request_id="again2").must_fail(400, "SQL_ERROR")
    assert state(c, "again")["state"] == "unknown"
    c.ok("DELETE FROM again")
    first = c.ok(**insert)
    same(first, c.ok(**insert))
    c.ok("CREATE TABLE IF NOT EXISTS nowhere(x)")
    c.ok("INSERT INTO nowhere VALUES (1)", request_id="again2")


@scenario(shared=True)
def ids_are_checked(c):
    table(c, "ids")
    insert = "INSERT INTO ids VALUES (?)"
    for good in ("a", "x" * 64, "é" * 32, "a/b?c#d%20", "'; DROP TABLE ids; --", '"', "\\", " ", "\U0001f43b" * 16):
        first = c.ok(insert, [good], request_id=good)
        same(first, c.ok(insert, [good], request_id=good))
        assert state(c, good)["lsn"] == first["lsn"]
    count = c.query("SELECT count(*) FROM ids").value
    for bad in ("", "x" * 65, "é" * 33, "a\x00b", "a\nb", "\x7f", "\x85", 1, None, ["a"], {}, True, 1.5):
        c.query(insert, ["bad"], request_id=bad).must_fail(400, "BAD_REQUEST")
    body = b'{"sql":"INSERT INTO ids VALUES (1)","request_id":"\xff\xfe"}'
    c.client().request("POST", "/query", body).must_fail(400, "BAD_REQUEST")
    for path in ("/writes/", "/writes/" + "x" * 65, "/writes/%", "/writes/%4", "/writes/%zz", "/writes/%00",
                 "/writes/a%0ab", "/writes/%ff", "/writes/%c3"):
        c.client().request("GET", path).must_fail(400, "BAD_REQUEST")
    c.client().request("GET", "/writes/a", token=None).must_fail(401, "UNAUTHORIZED")
    c.client().request("POST", "/writes/a").must_fail(405, "METHOD_NOT_ALLOWED")
    c.client().request("GET", "/writes").must_fail(404, "NOT_FOUND")
    assert c.query("SELECT count(*) FROM ids").value == count


@scenario(shared=True)
def reads_ignore_it_and_vacuum_refuses_it(c):
    table(c, "reads")
    for n in range(2):
        answer = c.ok("SELECT count(*) AS n FROM reads", request_id="read")
        assert answer["rows"] == [[n]] and "repeated" not in answer
        c.ok("INSERT INTO reads VALUES (1)")
    assert state(c, "read")["state"] == "unknown"
    error = c.query("VACUUM", request_id="v").must_fail(400, "BAD_REQUEST")
    assert "request_id" in error["message"]
    c.ok("VACUUM")
    c.query("SELECT", request_id="broken").must_fail(400, "SQL_ERROR")


@scenario(shared=True)
def the_receipts_are_not_the_clients_to_change(c):
    table(c, "mine")
    c.ok("INSERT INTO mine VALUES (1)", request_id="mine")
    assert c.query("SELECT count(*) FROM _grizzly_receipts WHERE request_id = 'mine'").value == 1
    for sql in ("DELETE FROM _grizzly_receipts", "UPDATE _Grizzly_Receipts SET lsn = 1", "DROP TABLE _grizzly_receipts",
                "INSERT INTO main.\"_grizzly_receipts\" SELECT * FROM _grizzly_receipts",
                "ALTER TABLE _grizzly_receipts ADD COLUMN x", "ALTER TABLE mine RENAME TO _grizzly_mine",
                "CREATE TABLE _grizzly_other(x)", "CREATE TABLE child(x REFERENCES [_grizzly_receipts](request_id))",
                "ALTER TABLE mine ADD COLUMN r TEXT REFERENCES _grizzly_receipts(request_id)",
                "CREATE INDEX i ON _grizzly_receipts(lsn)", "CREATE VIEW _grizzly_v AS SELECT 1",
                "CREATE TRIGGER t AFTER INSERT ON _grizzly_receipts BEGIN SELECT 1; END",
                "CREATE TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM _grizzly_receipts; END",
                "WITH x AS (SELECT 1) DELETE FROM _grizzly_receipts",
                "REPLACE INTO `_grizzly_receipts` SELECT * FROM _grizzly_receipts"):
        c.query(sql).must_fail(403, "FORBIDDEN")
        c.query("SELECT 1; " + sql).must_fail(403, "FORBIDDEN")
        c.query(sql, request_id="hostile").must_fail(403, "FORBIDDEN")
    c.ok("CREATE TABLE IF NOT EXISTS my_grizzly_bears(x); DROP TABLE my_grizzly_bears")
    same(c.ok("INSERT INTO mine VALUES (2)", request_id="mine2"), c.ok("INSERT INTO mine VALUES (2)",
                                                                        request_id="mine2"))


@scenario(shared=True)
def requests_sent_at_once_are_done_once(c):
    table(c, "race")
    nodes = [None, *c.replicas(), c.master()]
    for n in range(10):
        answers, barrier = [], threading.Barrier(8)

        def send(i):
            client = c.client(nodes[i % len(nodes)])
            barrier.wait()
            answers.append(client.query("INSERT INTO race VALUES (?)", [n], request_id="race %d" % n).must())
        threads = [threading.Thread(target=send, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(answers) == 8 and len({a["lsn"] for a in answers}) == 1, answers
        assert sum("repeated" not in a for a in answers) == 1, answers
    assert c.query("SELECT count(*) FROM race").value == 10


@scenario(replicas=2)
def a_repeat_is_known_after_failover_and_restart(c):
    table(c, "kept")
    insert = {"sql": "INSERT INTO kept VALUES (?) RETURNING k", "params": ["a"], "request_id": "kept"}
    first = c.ok(**insert)
    c.kill(c.master())
    c.wait_writable()
    same(first, c.ok(**insert))
    c.wait_all_up()
    c.kill_all()
    c.start()
    same(first, c.ok(**insert))
    c.stop()
    c.start()
    for node in (None, *c.replicas()):
        same(first, c.ok(node=node, **insert))
        assert state(c, "kept", node)["lsn"] == first["lsn"]
    assert c.query("SELECT count(*) FROM kept").value == 1
    c.wait_converged()


class Retrier(threading.Thread):
    """Inserts rows, each with an id of its own that it sends until it is answered."""

    def __init__(self, c, number, stopping):
        super().__init__(daemon=True)
        self.c, self.number, self.stopping = c, number, stopping
        self.done, self.wrong, self.retries, self.repeated = {}, [], 0, 0

    def run(self):
        nodes = [None, "node1", "node2", "node3"]
        n = 0
        while not self.stopping.is_set() and not self.wrong:
            n += 1
            self.insert("w%d-%d" % (self.number, n), nodes[(self.number + n) % len(nodes)])

    def insert(self, key, node):
        while True:
            try:
                answer = self.c.client(node, timeout_s=20).query("INSERT INTO retried VALUES (?)", [key],
                                                                 request_id=key)
            except (OSError, http.client.HTTPException):
                self.retries += 1
                node = None  # a node's own port is closed while it is down
                continue
            if answer.ok:
                self.done[key] = answer.json["lsn"]
                self.repeated += answer.json.get("repeated", False)
                return
            self.retries += 1
            if answer.http not in (429, 502, 503, 504):
                self.wrong.append(answer.text)
                return


@scenario(replicas=2, timeout_s=90)
def retries_while_the_master_is_killed_write_exactly_once(c):
    table(c, "retried", "k TEXT")
    stopping = threading.Event()
    clients = [Retrier(c, i, stopping) for i in range(6)]
    for t in clients:
        t.start()
    for _ in range(4):
        goal = sum(len(t.done) for t in clients) + 60
        c.wait(lambda: sum(len(t.done) for t in clients) >= goal or any(t.wrong for t in clients), 30, "inserts")
        c.kill(c.master())
        c.wait_writable()
        c.wait_all_up(30)
    stopping.set()
    for t in clients:
        t.join(60 * c.ctx.slow)
        assert not t.is_alive(), "a client hangs"
        assert not t.wrong, t.wrong
    done = {k: lsn for t in clients for k, lsn in t.done.items()}
    found = dict(map(tuple, c.query("SELECT k, count(*) FROM retried GROUP BY k").rows))
    assert found == {k: 1 for k in done}, "lost %s, more than once %s, strange %s" % (
        sorted(set(done) - set(found))[:3], [k for k, n in found.items() if n != 1][:3],
        sorted(set(found) - set(done))[:3])
    kept = dict(map(tuple, c.query("SELECT request_id, lsn FROM _grizzly_receipts").rows))
    assert {k: kept.get(k) for k in done} == done, "an answer's lsn is not its write's"
    c.ctx.note("%d rows, %d retries, %d answered as repeats" % (len(done), sum(t.retries for t in clients),
                                                                 sum(t.repeated for t in clients)))
    c.wait_converged()


@scenario(replicas=2, timeout_s=90, settings={"commit_timeout_ms": 1500})
def a_write_that_a_deposed_master_cut_is_lost_until_it_is_sent_again(c):
    table(c, "cut", "k TEXT")
    c.ok("INSERT INTO cut VALUES ('kept')", request_id="kept")
    c.wait_converged()
    c.wait_all_up()
    supervisor, old = c.freeze("supervisor"), c.last_master
    for node in c.last_replicas:  # dead, not frozen: nothing is left in their sockets
        os.kill(c.last_pids[node], signal.SIGKILL)
        wait_until(lambda n=node: not alive(c.last_pids[n]), 10, "%s to end" % node)
    insert = {"sql": "INSERT INTO cut VALUES ('lost')", "request_id": "lost"}
    answers = []
    writer = threading.Thread(target=lambda: answers.append(c.query(**insert)))
    writer.start()
    c.wait(lambda: state(c, "lost", old)["state"] == "pending", 10, "the write to be pending")
    writer.join()
    answers[0].must_fail(503, "NO_QUORUM")
    c.client(old).request("GET", "/writes/lost").must_fail(503, "NO_QUORUM")
    assert state(c, "kept", old)["state"] == "committed"
    os.kill(c.last_pids[old], signal.SIGKILL)
    with socket.socket() as s:  # keeps the old master from coming back too early
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: s.bind(("127.0.0.1", c.node_port(old))) is None, 10, "the old master's port")
        s.listen(1)
        c.thaw(supervisor)
        c.wait_writable()
    c.wait_all_up(40)
    c.wait_converged()
    assert c.master() != old
    for node in (None, *c.last_pids):
        answer = state(c, "lost", node)
        assert answer["state"] == "lost" and answer["lsn"] > state(c, "kept", node)["lsn"], answer
    local = c.client(old).request("GET", "/writes/lost", headers={"Grizzly-Local": "1"}).must()
    assert local["state"] == "lost", local
    assert c.query("SELECT count(*) FROM cut").value == 1
    first = c.ok(**insert)
    assert "repeated" not in first
    same(first, c.ok(**insert))
    for node in (None, *c.last_pids):
        assert state(c, "lost", node) == {"status": "ok", "request_id": "lost", "state": "committed",
                                          "lsn": first["lsn"]}
    c.kill(old)  # its list lies on its disk
    c.wait_all_up(30)
    local = c.client(old).request("GET", "/writes/lost", headers={"Grizzly-Local": "1"}).must()
    assert local["state"] == "lost", local
    assert c.query("SELECT count(*) FROM cut").value == 2


@scenario(replicas=2, timeout_s=60, settings={"durability": "all", "commit_timeout_ms": 40000})
def a_node_sends_a_forwarded_write_again_by_itself(c):
    table(c, "again", "k TEXT")
    c.wait_all_up()
    old, (node, other) = c.last_master, c.last_replicas
    stopped = [c.freeze("supervisor"), c.freeze_pid(c.last_pids[other])]  # nothing can be committed
    insert = {"sql": "INSERT INTO again VALUES ('a')", "request_id": "again"}
    answers = []
    writer = threading.Thread(target=lambda: answers.append(c.query(node=node, timeout_ms=40000, **insert)))
    writer.start()
    c.wait(lambda: state(c, "again", old)["state"] == "pending", 10, "the write to be pending")
    os.kill(c.last_pids[old], signal.SIGKILL)
    for pid in stopped:
        c.thaw(pid)
    writer.join()
    answers[0].must()
    assert c.query("SELECT count(*) FROM again").value == 1
    assert state(c, "again")["lsn"] == answers[0].json["lsn"]
    c.wait_all_up(30)


@scenario(replicas=2, timeout_s=60)
def a_switchover_fails_no_write_with_an_id(c):
    table(c, "moved", "k TEXT")
    stopping, wrong, done = threading.Event(), [], []

    def run(i):
        client = c.client(None if i % 2 else "node%d" % (i % 3 + 1), keep_alive=True)
        n = 0
        while not stopping.is_set():
            n += 1
            answer = client.query("INSERT INTO moved VALUES (?)", ["%d-%d" % (i, n)], request_id="m%d-%d" % (i, n))
            (done if answer.ok else wrong).append(answer.text)
    clients = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for t in clients:
        t.start()
    for _ in range(3):
        goal = len(done) + 50
        c.wait(lambda: len(done) >= goal or wrong, 20, "writes")
        assert c.command("switchover").returncode == 0
        c.wait_all_up()
    stopping.set()
    for t in clients:
        t.join()
    assert not wrong, wrong[:3]
    assert c.query("SELECT count(*), count(DISTINCT k) FROM moved").rows == [[len(done), len(done)]]


@scenario(replicas=1, settings={"retries": {"count_max": 20, "bytes_max": 65536}})
def the_oldest_are_forgotten(c):
    table(c, "few", "k TEXT")
    for n in range(60):
        c.ok("INSERT INTO few VALUES (?)", [str(n)], request_id="few %d" % n)
    assert c.query("SELECT count(*), min(seq) FROM _grizzly_receipts").rows == [[20, 41]]
    assert state(c, "few 39")["state"] == "unknown" and state(c, "few 40")["state"] == "committed"
    assert c.ok("INSERT INTO few VALUES (?)", ["40"], request_id="few 40")["repeated"]
    for n in range(20):
        c.ok("INSERT INTO few VALUES (?) RETURNING k, hex(zeroblob(10000))", ["l"], request_id="large %d" % n)
        assert c.query("SELECT sum(bytes) FROM _grizzly_receipts").value <= 65536
    c.query("INSERT INTO few VALUES ('x') RETURNING hex(zeroblob(600000))", request_id="x").must_fail(413, "TOO_LARGE")
    assert c.query("SELECT count(*) FROM few").value == 80
    c.check_integrity()
    c.wait_converged()
