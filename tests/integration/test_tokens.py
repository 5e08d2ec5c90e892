"""Who may do what: tokens with roles, made, changed and refused while everything runs, on every node at once."""
import glob
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from client import Client, raw_exchange, status_of
from cluster import wait_until
from harness import scenario

RANK = {"read": 1, "write": 2, "admin": 3}
WELL_KNOWN = "secure_token_2026"


def token_command(c, *words, environment=None):
    return subprocess.run([c.supervisor_bin, "token", *words, "--data-dir", c.data_dir], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=environment or c.environment(),
                          timeout=60 * c.ctx.slow, check=False)


def add(c, name, role, *words):
    done = token_command(c, "add", name, "--role", role, *words)
    assert done.returncode == 0, (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    assert len(lines) == 1 and re.fullmatch(r"gz_[0-9a-f]{12}_[0-9a-f]{64}", lines[0]), done.stdout
    return lines[0]


def revoke(c, name):
    done = token_command(c, "revoke", name)
    assert done.returncode == 0 and done.stdout == "", (done.returncode, done.stdout, done.stderr)
    return done


def ask(c, token, sql, node=None, headers=None, **more):
    port = c.port if node is None else c.node_port(node)
    return Client("127.0.0.1", port, token, 30 * c.ctx.slow, keep_alive=False).request(
        "POST", "/query", json.dumps({"sql": sql, **more}), headers=headers)


def get(c, token, path, node=None):
    port = c.port if node is None else c.node_port(node)
    return Client("127.0.0.1", port, token, 30 * c.ctx.slow, keep_alive=False).request("GET", path)


def nodes_of(c):
    return [n["id"] for n in c.status()["nodes"]]


def metric(c, node, name):
    text = get(c, c.token, "/metrics", node).text
    return int(re.search(r"^grizzly_%s\{[^}]*\} (\d+)$" % name, text, re.M).group(1))


# What each kind of request needs. {n} makes names unique, for some are done.
STATEMENTS = [
    ("read", "SELECT count(*) FROM t"), ("read", "VALUES (1)"), ("read", "EXPLAIN DELETE FROM t"),
    ("read", "WITH c AS (SELECT 1) SELECT * FROM c"), ("read", "PRAGMA table_info(t)"), ("read", "PRAGMA user_version"),
    ("read", "SELECT * FROM ft WHERE ft MATCH 'word'"), ("read", "SELECT * FROM rt"), ("read", "SHOW REPLICAS"),
    ("write", "INSERT INTO t VALUES (NULL, 1)"), ("write", "INSERT INTO t VALUES (NULL, 1) RETURNING a"),
    ("write", "REPLACE INTO t VALUES (1, 1)"), ("write", "UPDATE t SET b = b + 1 WHERE a < 0"),
    ("write", "DELETE FROM t WHERE a < 0"), ("write", "WITH c AS (SELECT -1 AS x) DELETE FROM t WHERE a IN c"),
    ("write", "INSERT INTO ft VALUES ('word')"), ("write", "INSERT INTO rt VALUES (NULL, 1, 2)"),
    ("write", "SELECT 1; INSERT INTO t VALUES (NULL, 2)"),
    ("admin", "CREATE TABLE n{n}(a)"), ("admin", "CREATE TABLE IF NOT EXISTS t(a)"),
    ("admin", "CREATE INDEX i{n} ON t(b)"), ("admin", "CREATE VIEW v{n} AS SELECT 1"),
    ("admin", "ALTER TABLE u ADD COLUMN c{n}"), ("admin", "DROP TABLE IF EXISTS nothing_{n}"),
    ("admin", "ANALYZE"), ("admin", "REINDEX"), ("admin", "VACUUM"), ("admin", "PRAGMA user_version = {n}"),
    ("admin", "PRAGMA optimize"), ("admin", "INSERT INTO t(b) VALUES (2); CREATE TABLE m{n}(a)"),
    ("admin", "REMOVE REPLICA node29"), ("admin", "ADD REPLICA not-an-address:0"),
]


@scenario(timeout_s=120)
def every_role_and_every_kind_of_statement(c):
    c.ok("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a); CREATE VIRTUAL TABLE ft USING fts5(x); "
         "CREATE VIRTUAL TABLE rt USING rtree(id, x0, x1)")
    c.wait_converged()
    tokens = {role: add(c, "the-" + role, role) for role in RANK}
    tokens["first"] = c.token
    replica, n = c.replicas()[0], 0
    for role, token in tokens.items():
        rank = RANK.get(role, RANK["admin"])
        for node in (None, replica):
            for consistency in ("linearizable", "stale"):
                for needs, sql in STATEMENTS:
                    n += 1
                    answer = ask(c, token, sql.format(n=n), node, consistency=consistency)
                    if rank < RANK[needs]:
                        message = answer.must_fail(403, "FORBIDDEN")["message"]
                        assert role in message, (sql, message)
                    else:
                        assert answer.code != "FORBIDDEN" and answer.http not in (401, 403), (role, sql, answer.text)
                        if "REPLICA n" not in sql and "/query" != sql:
                            assert answer.ok, (role, sql, answer.text)
    assert c.ok("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'm%'")["rows"] == [[8]]  # admin and first alone


@scenario(timeout_s=60)
def every_role_and_every_path(c):
    tokens = {role: add(c, "the-" + role, role) for role in RANK}
    c.ok("CREATE TABLE t(a)")
    c.wait_converged()
    needs = {"/status": "read", "/metrics": "read", "/writes/some-id": "read", "/backup": "admin"}
    for node in nodes_of(c):
        for path, needed in needs.items():
            for role, token in tokens.items():
                answer = get(c, token, path, node)
                if RANK[role] < RANK[needed]:
                    answer.must_fail(403, "FORBIDDEN")
                else:
                    assert answer.http == 200, (node, path, role, answer.text[:300])
            get(c, None, path, node).must_fail(401, "UNAUTHORIZED")
        assert get(c, None, "/health", node).http == 200


@scenario(timeout_s=60)
def role_is_kept_where_statements_are_classified_late(c):
    """A replica that does not know a table, requests with an id, several statements of which the first are harmless."""
    reader, writer = add(c, "r", "read"), add(c, "w", "write")
    c.ok("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    c.ok("INSERT INTO t VALUES (1, 'secret') RETURNING b", request_id="done by another")
    c.ok("CREATE TABLE gone(a)", request_id="made by an admin")
    both = "INSERT INTO t VALUES (2, 'two'); CREATE TABLE made(a)"
    c.ok(both, request_id="rows and schema")
    c.ok("CREATE TABLE other(a)")
    for node in (None, *nodes_of(c)):
        for token in (reader, writer):
            ask(c, token, both, node, request_id="rows and schema").must_fail(403, "FORBIDDEN")
    c.ok("DROP TABLE t")
    for node in (None, *nodes_of(c)):
        for consistency in ("linearizable", "stale", "session"):
            for sql in ("INSERT INTO t VALUES (1, 'secret') RETURNING b", "CREATE TABLE gone(a)"):
                answer = ask(c, reader, sql, node, consistency=consistency, request_id="done by another")
                assert answer.http in (400, 403) and "secret" not in answer.text, answer.text
            for sql, request_id in (("CREATE TABLE gone(a)", "made by an admin"), (both, "rows and schema")):
                answer = ask(c, writer, sql, node, consistency=consistency, request_id=request_id)
                assert answer.http in (400, 403) and "repeated" not in answer.text, answer.text
            ask(c, reader, "INSERT INTO other VALUES (1)", node, consistency=consistency,
                request_id="new").must_fail(403, "FORBIDDEN")
            ask(c, reader, "SELECT 1; SELECT 2; DELETE FROM other", node,
                consistency=consistency).must_fail(403, "FORBIDDEN")
            body = json.dumps({"statements": [{"sql": "INSERT INTO other VALUES (1)"}, {"sql": "DROP TABLE other"}],
                               "consistency": consistency})
            client = Client("127.0.0.1", c.port if node is None else c.node_port(node), writer)
            answer = client.request("POST", "/query", body).must_fail(403, "FORBIDDEN")
            assert answer["statement"] == 1, answer
    # The writer that may write gets the answer to the write it repeats, though the table has gone.
    repeat = ask(c, writer, "INSERT INTO t VALUES (1, 'secret') RETURNING b", request_id="done by another").must()
    assert repeat["repeated"] and repeat["rows"] == [["secret"]], repeat
    assert c.ok("SELECT count(*) FROM other")["rows"] == [[0]]


@scenario(timeout_s=60)
def forwarding_never_raises_a_role(c):
    """What a node says to another, said by a client: it only takes from what the client's own token allows."""
    c.ok("CREATE TABLE t(a)")
    c.wait_converged()
    reader, writer, admin = add(c, "r", "read"), add(c, "w", "write"), add(c, "a", "admin")
    forged = [{"Grizzly-Forwarded": "1"}, {"Grizzly-Role-Max": "admin"}, {"Grizzly-Local": "1"},
              {"Grizzly-Forwarded": "1", "Grizzly-Role-Max": "admin", "Grizzly-Hops": "1"}]
    for node in (None, *nodes_of(c)):
        for headers in forged:
            answer = ask(c, reader, "INSERT INTO t VALUES (1)", node, headers)
            assert answer.http in (403, 503), answer.text  # 503: a replica does not forward what says that it was
            answer = ask(c, writer, "CREATE TABLE u(a)", node, headers)
            assert answer.http in (403, 503), answer.text
            for token in ("x" * 40, "gz_" + "0" * 12 + "_" + "0" * 64, ""):
                assert ask(c, token, "SELECT 1", node, headers).http == 401
        for limit, sql, allowed in (("read", "INSERT INTO t VALUES (1)", False), ("write", "DROP TABLE t", False),
                                    ("nonsense", "INSERT INTO t VALUES (1)", False), ("", "DROP TABLE t", False),
                                    ("write", "INSERT INTO t VALUES (2)", True), ("read", "SELECT 1", True)):
            answer = ask(c, admin, sql, node, {"Grizzly-Role-Max": limit})
            assert answer.ok if allowed else answer.code == "FORBIDDEN", (limit, sql, answer.text)
    # The token in the body alone is passed on as well.
    replica = c.replicas()[0]
    for token, code in ((reader, 403), (writer, 200)):
        body = json.dumps({"sql": "INSERT INTO t VALUES (3)", "token": token})
        assert c.client(replica).request("POST", "/query", body, token=None).http == code
        assert c.client(replica).request("POST", "/query", body, token=c.token).http == 401  # two different ones
        assert c.client(replica).request("POST", "/query", body, token=token).http == code
    assert c.ok("SELECT DISTINCT a FROM t ORDER BY a")["rows"] == [[2], [3]]
    assert get(c, reader, "/writes/nothing", replica).json["state"] == "unknown"


@scenario(start=False, timeout_s=60)
def federated_requests_keep_the_role(ctx):
    """A node asks another with a token of its own, an admin's there, and still for no more than its client may do."""
    b = ctx.cluster(replicas=0).start()
    address = "127.0.0.1:%d" % b.port
    a = ctx.cluster(replicas=1, settings={"remote": {"nodes": {
        address: {"token_file": os.path.join(b.data_dir, "token")}}}}).start()
    b.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    own = "127.0.0.1:%d" % a.node_port("node1")
    a.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    reader, writer = add(a, "r", "read"), add(a, "w", "write")
    for where in (address, own):
        for node in (None, "node1", "node2"):
            assert ask(a, reader, "SELECT a FROM %s@t" % where, node).rows == [[1]]
            assert ask(a, reader, "SELECT r.a FROM %s@t AS r JOIN t ON t.a = r.a" % where, node).rows == [[1]]
            for sql in ("INSERT INTO t SELECT * FROM %s@t",
                        "INSERT INTO %s@t VALUES (2)", "DELETE FROM %s@t", "UPDATE %s@t SET a = 2",
                        "WITH c AS (SELECT 2) INSERT INTO %s@t SELECT * FROM c", "SELECT 1; DELETE FROM %s@t"):
                answer = ask(a, reader, sql % where, node)
                assert not answer.ok and answer.http in (400, 403), (sql, answer.text)
        assert ask(a, writer, "UPDATE %s@t SET a = 3" % where).ok
        assert ask(a, writer, "UPDATE %s@t SET a = 1" % where, "node2").ok
    # What comes with an admin's token from a node is limited by what that node says.
    answer = ask(b, b.token, "DELETE FROM t", None, {"Grizzly-Hops": "1", "Grizzly-Role-Max": "read"})
    answer.must_fail(403, "FORBIDDEN")
    # A token of the other cluster that may only read stops writers of this one, too.
    with open(os.path.join(ctx.directory, "read-only"), "w") as f:
        f.write(add(b, "for-a", "read") + "\n")
    a.stop()
    a.config["remote"]["nodes"][address]["token_file"] = f.name
    a.write_config()
    a.start()
    assert ask(a, writer, "SELECT a FROM %s@t" % address).rows == [[1]]
    assert "role" in ask(a, writer, "DELETE FROM %s@t" % address).must_fail(403, "FORBIDDEN")["message"]
    assert b.ok("SELECT a FROM t")["rows"] == [[1]] and a.ok("SELECT a FROM t")["rows"] == [[1]]


@scenario(timeout_s=60)
def revoked_at_once_on_kept_connections_of_every_node(c):
    tokens = {role: add(c, role, role) for role in RANK}
    clients = [(role, Client("127.0.0.1", port, token, 30 * c.ctx.slow)) for role, token in tokens.items()
               for port in (c.port, *(c.node_port(n) for n in nodes_of(c)))]
    for _ in range(3):
        for _, client in clients:
            client.query("SELECT 1", consistency="stale").must()
    for gone in ("write", "read", "admin"):
        done = revoke(c, gone)
        assert "all 3 nodes" in done.stderr, done.stderr
        for role, client in clients:
            answer = client.query("SELECT 1", consistency="stale")
            if RANK[role] == RANK[gone] or role not in tokens:
                answer.must_fail(401, "UNAUTHORIZED")
            else:
                assert answer.ok, (role, gone, answer.text)
        del tokens[gone]
    for _, client in clients:
        client.close()
    done = token_command(c, "revoke", "read")
    assert done.returncode == 1 and "no token" in done.stderr, done.stderr


@scenario(timeout_s=60)
def expired_at_their_very_second(c):
    token = add(c, "short", "write", "--expires", "2s")
    kept = [Client("127.0.0.1", c.node_port(n), token) for n in nodes_of(c)]
    listed = json.loads(token_command(c, "list", "--json").stdout)
    assert listed[0]["name"] == "short" and not listed[0]["expired"], listed
    for client in kept:
        client.query("SELECT 1", consistency="stale").must()
    c.wait(lambda: json.loads(token_command(c, "list", "--json").stdout)[0]["expired"], 10, "the token to expire")
    for client in kept:
        answer = client.query("SELECT 1", consistency="stale")
        assert "expired" in answer.must_fail(401, "UNAUTHORIZED")["message"]
        client.close()
    log = "".join(open(p).read() for p in glob.glob(os.path.join(c.data_dir, "log", "node*.log")))
    assert 'with the token "short", which has expired, from 127.0.0.1' in log
    for when in ("2001-01-01T00:00:00Z", "1", "yesterday", "0d", "", "-1d", "99999999999999999999d"):
        done = token_command(c, "add", "no", "--role", "read", "--expires", when)
        assert done.returncode == 2 and done.stdout == "", (when, done.returncode, done.stdout, done.stderr)


@scenario(timeout_s=60)
def malformed_tokens_and_those_of_other_clusters(c):
    good = add(c, "good", "admin")
    other = c.ctx.cluster(replicas=0).start()
    theirs = add(other, "good", "admin")
    wrong = [theirs, other.token, good[:-1], good + "0", good.upper(), good[:16] + "0" * 64, "gz_", "gz__", "x" * 8000,
             "gz_" + "0" * 12 + "_" + good[16:], theirs[:16] + good[16:], good.replace("_", "-"), '"%s"' % good,
             good + " " + good, "%s,%s" % (good, good), "../token", WELL_KNOWN]
    nodes = nodes_of(c)
    for i, token in enumerate(wrong):
        ask(c, token, "SELECT 1", nodes[i % len(nodes)]).must_fail(401, "UNAUTHORIZED")
    for node in nodes:
        assert ask(c, good, "SELECT 1", node).ok
        for line in (b"Authorization: %s" % good.encode(), b"Authorization: Basic %s" % good.encode(),
                     b"Authorization: Bearer", b"Authorization: Bearer %s\0" % good.encode()[:40]):
            answer = raw_exchange("127.0.0.1", c.node_port(node),
                                  [b"GET /status HTTP/1.0\r\n" + line + b"\r\n\r\n"])
            assert status_of(answer) in (400, 401), answer
    # The lines of another cluster's file are worth nothing here, nor is the whole.
    c.stop()
    with open(os.path.join(other.data_dir, "tokens")) as f:
        text = f.read()
    path = os.path.join(c.data_dir, "tokens")
    with open(path) as f:
        ours = f.read()
    with open(path, "w") as f:
        f.write(text)
    done = c.command("run", "--daemon")
    assert done.returncode == 2 and "another cluster" in done.stderr, (done.returncode, done.stderr)
    for damage in (ours[:-10], ours.replace("admin", "write"), ours.replace(" 1 ", " 2 "), "", "\n", ours + ours):
        with open(path, "w") as f:
            f.write(damage)
        done = c.command("run", "--daemon")
        assert done.returncode == 2 and "tokens" in done.stderr, (damage, done.returncode, done.stderr)
        done = token_command(c, "add", "x", "--role", "read")
        assert done.returncode in (1, 2) and done.stdout == "" and "tokens" in done.stderr, done.stderr
    with open(path, "w") as f:
        f.write(ours)
    c.start()
    assert ask(c, good, "SELECT 1").ok


@scenario(timeout_s=60)
def damaged_while_the_nodes_run(c):
    """What was accepted still is, nothing else, and a node that starts meanwhile accepts the first token alone."""
    good = add(c, "good", "read")
    path = os.path.join(c.data_dir, "tokens")
    with open(path) as f:
        ours = f.read()
    with open(path, "w") as f:
        f.write(ours.replace("read", "admin"))
    c.wait(lambda: all(metric(c, n, "tokens_file_failures_total") > 0 for n in nodes_of(c)), 10,
           "the nodes to see the damage")
    for node in nodes_of(c):
        assert ask(c, good, "SELECT 1", node).ok
        ask(c, good, "CREATE TABLE t(a)", node).must_fail(403, "FORBIDDEN")
    replica = c.replicas()[0]
    c.kill(replica)
    c.wait_all_up()
    ask(c, good, "SELECT 1", replica, consistency="stale").must_fail(401, "UNAUTHORIZED")
    assert c.query("SELECT 1", node=replica).ok
    done = token_command(c, "revoke", "good")
    assert done.returncode == 1 and "damaged" in done.stderr, done.stderr
    with open(path, "w") as f:
        f.write(ours)
    c.wait(lambda: ask(c, good, "SELECT 1", replica).ok, 10, "the restored file to be read")
    os.unlink(path)
    c.wait(lambda: all(ask(c, good, "SELECT 1", n).http == 401 for n in nodes_of(c)), 10, "nobody to have a token")
    assert c.query("SELECT 1").ok


@scenario(timeout_s=90)
def with_and_without_supervisor_and_nodes(c):
    before = add(c, "before", "read")
    pid = c.pid(c.replicas()[0])
    frozen = next(n for n, p in c.pids().items() if p == pid)
    c.kill("supervisor")
    alone = add(c, "alone", "read")
    for node in ("node1", "node2", "node3"):
        assert ask(c, alone, "SELECT 1", node, consistency="stale").ok
    # One that stands still is named, and has it soon after it goes on.
    c.freeze_pid(pid)
    done = token_command(c, "revoke", "before")
    assert done.returncode == 1 and frozen + " has not got it" in done.stderr, (done.returncode, done.stderr)
    c.thaw(pid)
    c.wait(lambda: ask(c, before, "SELECT 1", frozen, consistency="stale").http == 401, 10, "the thawed node to look")
    c.start_supervisor()
    c.wait_all_up()
    assert ask(c, alone, "SELECT 1").ok
    ask(c, before, "SELECT 1").must_fail(401, "UNAUTHORIZED")
    master = c.master()
    c.kill(master)
    c.wait_ready()
    assert ask(c, alone, "SELECT 1").ok
    c.wait_all_up()
    ask(c, before, "SELECT 1", master, consistency="stale").must_fail(401, "UNAUTHORIZED")
    c.stop()
    done = token_command(c, "add", "offline", "--role", "write")
    assert done.returncode == 0 and "no node runs" in done.stderr, done.stderr
    assert token_command(c, "revoke", "alone").returncode == 0
    c.start()
    assert ask(c, done.stdout.strip(), "SELECT 1").ok
    ask(c, alone, "SELECT 1").must_fail(401, "UNAUTHORIZED")


@scenario(timeout_s=60)
def many_changes_at_once_lose_none(c):
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(
        token_command(c, "add", "n%d" % i, "--role", "read"))) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [r.returncode for r in results] == [0] * 8, [r.stderr for r in results]
    for r in results:
        for node in nodes_of(c):
            assert ask(c, r.stdout.strip(), "SELECT 1", node, consistency="stale").ok
    assert len(json.loads(token_command(c, "list", "--json").stdout)) == 8
    assert token_command(c, "add", "n1", "--role", "read").returncode == 1
    for words in (("add", "x"), ("add", "--role", "read"), ("add", "x", "--role", "root"),
                  ("add", "a b", "--role", "read"), ("revoke",), ("burn", "x"), ("add", "x" * 65, "--role", "read"), ()):
        done = token_command(c, *words)
        assert done.returncode == 2 and done.stdout == "", (words, done.returncode, done.stderr)


@scenario(timeout_s=60)
def first_token_is_changed_without_a_restart(c):
    old, new = c.token, "e" * 64
    kept = Client("127.0.0.1", c.port, old)
    kept.query("SELECT 1").must()
    with open(os.path.join(c.data_dir, "token.new"), "w") as f:
        f.write(new + "\n")
    os.rename(f.name, os.path.join(c.data_dir, "token"))
    c.wait(lambda: all(ask(c, new, "SELECT 1", n, consistency="stale").ok for n in nodes_of(c)), 10, "the new token")
    kept.query("SELECT 1").must_fail(401, "UNAUTHORIZED")
    kept.close()
    for node in nodes_of(c):
        ask(c, old, "SELECT 1", node).must_fail(401, "UNAUTHORIZED")
    # Its own nodes are asked with the new one.
    c.ok("CREATE TABLE t(a)")
    assert c.ok("SELECT * FROM 127.0.0.1:%d@t" % c.port)["rows"] == []


@scenario(start=False, timeout_s=60)
def well_known_token_works_only_when_set_and_on_loopback(ctx):
    c = ctx.cluster(replicas=0)
    environment = dict(c.environment(), GRIZZLY_TOKEN=WELL_KNOWN)
    c.config["bind"] = "192.0.2.1"
    c.config["insecure"] = True
    c.write_config()
    done = subprocess.run([c.supervisor_bin, "run", "--data-dir", c.data_dir, "--daemon"], capture_output=True,
                          text=True, env=environment, timeout=60 * ctx.slow, check=False)
    assert done.returncode == 2 and "loopback" in done.stderr, (done.returncode, done.stderr)
    assert not os.path.exists(os.path.join(c.data_dir, "token"))
    c.config["bind"] = "0.0.0.0"
    c.write_config()
    done = subprocess.run([c.supervisor_bin, "run", "--data-dir", c.data_dir, "--daemon"], capture_output=True,
                          text=True, env=environment, timeout=60 * ctx.slow, check=False)
    assert done.returncode == 0, done.stderr
    c.wait_ready()
    assert ask(c, WELL_KNOWN, "CREATE TABLE t(a)").ok
    address = own_address()
    if address is None:
        ctx.note("no address but loopback here")
        return
    client = Client(address, c.port, WELL_KNOWN)
    client.query("SELECT 1").must_fail(401, "UNAUTHORIZED")
    client.close()
    assert Client(address, c.port, add(c, "from-afar", "read")).query("SELECT 1").ok
    with open(os.path.join(c.data_dir, "log", "node1.log")) as f:
        assert "with the well-known token, which is for loopback addresses only, from " + address in f.read()


def own_address():
    """An address of this host besides loopback; None when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = s.getsockname()[0]
    return None if address.startswith("127.") else address


class Flood:
    """Wrong tokens from one address, on many connections at once, until it is left."""

    def __init__(self, port, source, connections):
        self.stopping, self.statuses, self.lock = False, [], threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(port, source)) for _ in range(connections)]

    def run(self, port, source):
        while not self.stopping:
            try:
                with socket.create_connection(("127.0.0.1", port), 30, (source, 0)) as s:
                    s.sendall(b"GET /status HTTP/1.0\r\nAuthorization: Bearer wrong-wrong-wrong\r\n\r\n")
                    reply = s.makefile("rb").read()
                with self.lock:
                    self.statuses.append(status_of(reply))
            except OSError:
                pass

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for t in self.threads:
            t.join()


@scenario(timeout_s=60, replicas=0)
def flood_of_wrong_tokens_slows_nobody_else(c):
    token = add(c, "good", "write")
    c.ok("CREATE TABLE t(a)")
    failures = metric(c, "node1", "http_auth_failures_total")
    with Flood(c.port, "127.0.0.9", 48) as flood:
        c.wait(lambda: metric(c, "node1", "http_auth_delayed_total") >= 32 and
               metric(c, "node1", "http_auth_refused_total") > 0, 20, "the flood to be slowed down")
        # An address that never failed is refused at once, a right token is taken from any, the flood's too.
        began = time.monotonic()
        for source in ("127.0.0.1", "127.0.0.9"):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", c.port), 30, (source, 0)) as s:
                    s.sendall(b"GET /status HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n" % token.encode())
                    assert status_of(s.makefile("rb").read()) == 200
        with socket.create_connection(("127.0.0.1", c.port), 30, ("127.0.0.10", 0)) as s:
            s.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            assert status_of(s.makefile("rb").read()) == 401
        c.ctx.note("41 requests beside the flood in %.0f ms" % ((time.monotonic() - began) * 1000))
        assert c.query("INSERT INTO t VALUES (1)").ok
    assert set(flood.statuses) <= {401, 429, None} and 429 in flood.statuses and 401 in flood.statuses
    assert metric(c, "node1", "http_auth_failures_total") - failures >= len(flood.statuses)
    with open(os.path.join(c.data_dir, "log", "node1.log")) as f:
        lines = [line for line in f if "was refused" in line]
    assert 2 <= len(lines) <= 12 and any("127.0.0.9 " in line for line in lines), lines
    # A node that ends does not wait for those who wait.
    with Flood(c.port, "127.0.0.9", 32):
        c.stop()


@scenario(timeout_s=60)
def token_material_shows_nowhere(c):
    tokens = [add(c, role, role) for role in RANK] + [c.token]
    c.ok("CREATE TABLE t(a)")
    c.wait_converged()
    texts = [token_command(c, "list").stdout, token_command(c, "list", "--json").stdout, c.command("status").stdout,
             c.command("status", "--json").stdout, c.command("events", "--json").stdout]
    for token in tokens:
        for node in nodes_of(c):
            texts.append(ask(c, token, "SELEC", node).text)
            texts.append(ask(c, token + "x", "SELECT 1", node).text)
            texts.append(get(c, token, "/status", node).text)
            texts.append(get(c, token, "/metrics", node).text)
            answer = c.client(node).request("POST", "/query", json.dumps({"sql": "SELECT 1", "token": token + "y"}),
                                            token=None)
            texts.append(answer.text)
    for pid in (c.supervisor.pid, *c.pids().values()):
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            texts.append(f.read().decode())
    revoke(c, "read")
    c.stop()
    for directory, _, names in os.walk(c.data_dir):
        for name in names:
            path = os.path.join(directory, name)
            if path != os.path.join(c.data_dir, "token") and os.path.isfile(path):
                with open(path, "rb") as f:
                    texts.append(f.read().decode("latin-1"))
    for token in tokens:
        secret = token.rsplit("_", 1)[-1]
        assert not any(secret in text for text in texts), "a token shows"
    assert os.stat(os.path.join(c.data_dir, "tokens")).st_mode & 0o777 == 0o600
