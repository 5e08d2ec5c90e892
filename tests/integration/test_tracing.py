"""A request's name: where it comes from, and that it can be followed from the edge to the replicas' logs; who did what."""
import json
import os
import re
import signal
import subprocess

from harness import scenario

DEBUG = {"logging": {"level": "debug", "format": "json"}}


def lines_of(c, node):
    with open(os.path.join(c.data_dir, "log", node + ".log"), errors="replace") as f:
        return [json.loads(line) for line in f if line.startswith("{") and line.endswith("}\n")]


def about(c, node, request_id):
    return [line for line in lines_of(c, node) if line.get("request_id") == request_id]


def name_of(answer):
    return answer.headers["X-Request-Id"]


@scenario(timeout_s=60, replicas=0)
def each_answer_names_its_request(c):
    client = c.client()
    made = [name_of(client.query("SELECT 1")) for _ in range(3)]
    made += [name_of(client.request("GET", path)) for path in ("/health", "/status", "/metrics", "/nothing")]
    made += [name_of(client.request("HEAD", "/ready")), name_of(client.request("POST", "/query", "{")),
             name_of(client.request("POST", "/query", '{"sql":"SELECT 1"}', token="wrong")),
             name_of(client.query("SELECT nothing FROM nowhere")), name_of(client.query("CREATE TABLE t(v)")),
             name_of(client.query("WITH RECURSIVE i(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM i LIMIT 100000) "
                                  "SELECT x FROM i")), name_of(client.request("GET", "/backup"))]
    assert len(set(made)) == len(made), made
    prefixes = {name.rsplit("-", 1)[0] for name in made}
    assert len(prefixes) == 1 and re.fullmatch("node1-[a-z0-9]{8}", prefixes.pop()), made
    assert all(len(name) <= 40 for name in made), made
    # Given ones come back as they are.
    for given in ("a", "shop/42", "x" * 64, "größe".encode().decode("latin-1")):
        assert name_of(client.request("GET", "/health", headers={"X-Request-Id": given})) == given
    # The body's goes before; what cannot be a name is ignored.
    body = json.dumps({"sql": "INSERT INTO t VALUES (1)", "request_id": "body 1"})
    assert name_of(client.request("POST", "/query", body, headers={"X-Request-Id": "header"})) == "body 1"
    for bad in ("", "x" * 65, "x" * 5000, "tab\there", "\x7f", "\xff\xfe", "\xc3"):
        assert name_of(client.request("GET", "/health", headers={"X-Request-Id": bad})).startswith("node1-"), bad
    before = name_of(client.query("SELECT 1")).rsplit("-", 1)[0]
    os.kill(c.pid("node1"), signal.SIGKILL)
    c.wait_writable()
    assert name_of(c.query("SELECT 1")).rsplit("-", 1)[0] != before, "names of two lives are told apart"


def range_has(line, lsn):
    found = re.search(r"first_lsn=(\d+) last_lsn=(\d+)", line["text"])
    return found and int(found[1]) <= lsn <= int(found[2])


def check_way(c, edge, answer, request_id):
    """From the node that was asked over the master to what every replica did with its record."""
    lsn = answer.must()["lsn"]
    master = answer.json["node"]
    forwarded = about(c, edge, request_id)
    if edge != master:
        assert any(line["text"].startswith("forwards to the master") for line in forwarded), forwarded
    assert any(line["text"] == "request answered" and line["status"] == "200" for line in forwarded), forwarded
    committed = [line for line in about(c, master, request_id) if line["text"] == "write committed"]
    assert [line["lsn"] for line in committed] == [str(lsn)], committed
    for replica in c.replicas():
        for what in ("walreceiver: durable", "walreceiver: applied"):
            c.wait(lambda w=what, r=replica: [line for line in lines_of(c, r)
                                              if line["text"].startswith(w) and range_has(line, lsn)],
                   10, "%s to log that lsn %d is there" % (replica, lsn))


@scenario(timeout_s=90, settings=DEBUG)
def write_is_followed_from_the_edge_to_every_replica(c):
    c.ok("CREATE TABLE t(v)")
    replica = c.replicas()[0]
    at_replica = c.client(replica)
    answer = at_replica.request("POST", "/query", '{"sql":"INSERT INTO t VALUES (1)"}',
                                headers={"X-Request-Id": "by header"})
    check_way(c, replica, answer, "by header")
    answer = at_replica.query("INSERT INTO t VALUES (2)", request_id="by body")
    check_way(c, replica, answer, "by body")
    answer = at_replica.query("INSERT INTO t VALUES (3)")
    check_way(c, replica, answer, name_of(answer))
    assert name_of(answer).startswith(replica + "-")
    answer = c.query("INSERT INTO t VALUES (4)")
    check_way(c, c.master(), answer, name_of(answer))
    # A repeat is the first one's record.
    again = at_replica.query("INSERT INTO t VALUES (2)", request_id="by body")
    committed = [line["lsn"] for line in about(c, c.master(), "by body") if line["text"] == "write committed"]
    assert committed == [str(again.must()["lsn"])] * 2, committed
    # Lines that are nobody's have no name.
    assert not any("request_id" in line for node in ("node1", "node2", "node3") for line in lines_of(c, node)
                   if line["text"].startswith(("walreceiver", "walsender", "checkpoint", "master of")))
    for node in ("node1", "node2", "node3"):
        with open(os.path.join(c.data_dir, "log", node + ".log"), errors="replace") as f:
            text = f.read()
        assert c.token not in text and "INSERT INTO" not in text, "a token or statements at level debug"


@scenario(timeout_s=60, replicas=0, settings={"logging": {"slow_query_ms": 1, "format": "json"}})
def warnings_name_the_request(c):
    slow = "WITH RECURSIVE i(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM i LIMIT %d) SELECT count(*) FROM i"
    c.ok("CREATE TABLE t(v)")
    assert c.query(slow % 300000, request_id="slow read").ok
    assert c.query("INSERT INTO t " + slow % 300000, request_id="slow write").ok
    c.query(slow % 10**9, request_id="late", timeout_ms=50).must_fail(504, "TIMEOUT")
    c.client().request("POST", "/query", '{"sql":"SELECT 1"}', headers={"X-Request-Id": "intruder"}, token="wrong")

    def texts(request_id):
        return [(line["level"], line["text"], line.get("code")) for line in about(c, "node1", request_id)]
    c.wait(lambda: texts("slow read"), 10, "the slow read's line")  # written behind the answer
    assert [t[1] for t in texts("slow read")] == ["slow query"], texts("slow read")
    c.wait(lambda: texts("slow write"), 10, "the slow write's line")
    assert texts("slow write")[0][1] == "slow query"
    assert ("warn", "request failed", "TIMEOUT") in texts("late"), texts("late")
    first = texts("intruder")
    assert len(first) == 1 and "without a valid token" in first[0][1], first
    # What the client itself has got wrong is no warning; that it took a millisecond on a busy machine may be one.
    c.query("SELEC 1", request_id="typo").must_fail(400, "SQL_ERROR")
    c.query("SELECT 1", request_id="done").must()
    assert not [t for t in texts("typo") + texts("done") if t[1] != "slow query"], (texts("typo"), texts("done"))


@scenario(timeout_s=60, settings={"commit_timeout_ms": 2000, "logging": {"level": "debug", "format": "json"}})
def lost_quorum_is_logged_with_the_request_and_not_too_often(c):
    c.ok("CREATE TABLE t(v)")
    master = c.master()
    frozen = [c.freeze("supervisor")] + [c.freeze_pid(c.last_pids[n]) for n in c.last_replicas]
    c.query("INSERT INTO t VALUES (1)", request_id="in doubt").must_fail(503, "NO_QUORUM")
    doubt = [x for x in about(c, master, "in doubt") if x["text"] == "write in doubt"]
    assert len(doubt) == 1 and int(doubt[0]["lsn"]) > 0, doubt
    line = [x for x in about(c, master, "in doubt") if x["text"] == "request failed"]
    assert [(x["level"], x["text"], x["code"]) for x in line] == [("warn", "request failed", "NO_QUORUM")], line
    client = c.client(keep_alive=True)
    tries = 200
    for i in range(tries):
        client.query("INSERT INTO t VALUES (1)", timeout_ms=1, request_id="many-%d" % i)
    for pid in frozen:
        c.thaw(pid)
    c.wait_writable()
    many = [x for x in lines_of(c, master) if str(x.get("request_id", "")).startswith("many-") and
            x["text"] == "request failed"]
    assert 0 < len(many) < tries, len(many)


@scenario(start=False, timeout_s=90)
def request_keeps_its_name_in_another_cluster(ctx):
    b = ctx.cluster(replicas=0, settings=DEBUG).start()
    b.ok("CREATE TABLE there(v); INSERT INTO there VALUES (1), (2)")
    at_b = "127.0.0.1:%d@there" % b.port
    a = ctx.cluster(replicas=1, settings={**DEBUG, "remote": {"nodes": {"127.0.0.1:%d" % b.port: {
        "token_file": os.path.join(b.data_dir, "token")}}}}).start()
    a.ok("CREATE TABLE here(v); INSERT INTO here VALUES (2), (3)")
    replica = a.replicas()[0]
    for sql, name in (("SELECT count(*) FROM " + at_b, "shipped"),
                      ("SELECT count(*) FROM here JOIN %s AS t USING (v)" % at_b, "joined"),
                      ("INSERT INTO here SELECT v FROM " + at_b, "filled")):
        answer = a.client(replica).request("POST", "/query", json.dumps({"sql": sql}),
                                           headers={"X-Request-Id": name})
        answer.must()
        assert any(line["text"] == "request answered" for line in about(b, "node1", name)), name
        assert any(line["text"] == "request answered" for line in about(a, replica, name)), name


def token(c, *words):
    return subprocess.run([c.supervisor_bin, "token", *words, "--data-dir", c.data_dir], capture_output=True, text=True,
                          env=c.environment(), check=False)


@scenario(timeout_s=90, replicas=1)
def audit_log_names_tokens_and_users_and_never_material(c):
    def audit():
        with open(os.path.join(c.data_dir, "log", "audit.jsonl")) as f:
            return [json.loads(line) for line in f]
    made = token(c, "add", "ops", "--role", "admin", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert token(c, "add", "ops", "--role", "read").returncode != 0
    client = c.client()
    wrong = client.request("POST", "/query", '{"sql":"REMOVE REPLICA 127.0.0.1:1","request_id":"change 7"}',
                           token=secret)
    assert not wrong.ok, wrong.text
    through_replica = c.client(c.replicas()[0]).request(
        "POST", "/query", json.dumps({"sql": "REMOVE REPLICA 127.0.0.1:2", "token": secret}), token=None)
    assert not through_replica.ok, through_replica.text
    assert client.request("GET", "/backup", headers={"X-Request-Id": "copy 1"}, token=secret).http == 200
    assert client.request("GET", "/backup").http == 200
    assert token(c, "revoke", "ops").returncode == 0
    assert token(c, "revoke", secret).returncode != 0, "a token is no name"
    lines = audit()[1:]
    user = "(uid %d, pid " % os.getuid()
    assert [line["action"] for line in lines] == ["token-add", "token-add", "remove-replica", "remove-replica", "backup",
                                                  "backup", "token-revoke", "token-revoke"], lines
    added, refused, removed, forwarded, copied, first, revoked, no_name = lines
    assert added["detail"].startswith("ops, role admin, expires 20") and added["outcome"] == "ok", added
    assert user in added["by"] and user in revoked["by"] and "request_id" not in added, lines
    assert refused["detail"] == "ops, role read, expires never" and "ops" in refused["outcome"], refused
    assert removed["by"] == 'token "ops" from 127.0.0.1' and removed["request_id"] == "change 7", removed
    assert forwarded["by"] == 'token "ops" from 127.0.0.1', forwarded
    assert forwarded["request_id"] == name_of(through_replica), forwarded
    assert copied["by"] == 'token "ops" from 127.0.0.1' and copied["request_id"] == "copy 1", copied
    assert first["by"] == "the first token from 127.0.0.1", first
    assert (revoked["detail"], revoked["outcome"]) == ("ops", "ok"), revoked
    assert no_name["detail"] == "(no name)", no_name
    text = json.dumps(lines)
    assert c.token not in text and secret not in text and secret[16:40] not in text


@scenario(timeout_s=60, replicas=0, start=False)
def audit_file_that_root_makes_is_the_owners(ctx):
    if os.geteuid() != 0:
        ctx.skip("only root gives files away")
    c = ctx.cluster(replicas=0)
    c.start()
    c.stop()
    path = os.path.join(c.data_dir, "log", "audit.jsonl")
    os.unlink(path)
    os.chown(c.data_dir, 65534, 65534)
    done = subprocess.run([c.supervisor_bin, "token", "add", "late", "--role", "read", "--data-dir", c.data_dir],
                          capture_output=True, text=True, env=c.environment(), check=False)
    assert done.returncode == 0, done.stderr
    info = os.stat(path)
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (65534, 65534, 0o600), info
    os.chown(c.data_dir, 0, 0)
