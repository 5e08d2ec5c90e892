"""Members are added and removed while the cluster works: on every road, under load, and whatever dies in between."""
import json
import os
import signal
import threading
import time

from cluster import alive, process_state, tagged_pids
from harness import scenario
from load import Load

SETTINGS = {"commit_timeout_ms": 2000}


def address(c, number, offset=0):
    return "127.0.0.1:%d" % (c.port + offset + number)


def members(c):
    """What `replicas --json` says: {id: row}; a change under way is in no row but in `change`."""
    done = c.command("replicas", "--json")
    if done.returncode != 0:
        raise ValueError("replicas: exit %d: %s" % (done.returncode, done.stderr.strip()))
    return json.loads(done.stdout)


def ids(c):
    return [r["id"] for r in members(c)["replicas"]]


def voters(c):
    return sorted(r["id"] for r in members(c)["replicas"] if r["voting"])


def settled(c, expected=None):
    """Waits until no change is under way and every member is up; then the ids must be those expected."""
    def look():
        seen = members(c)
        c.replica_count = len(seen["replicas"]) - 1
        return seen["change"] is None and all(r["state"] == "up" for r in seen["replicas"]) and c.are_all_up() and seen
    seen = c.wait(look, 30, "the members to settle", interval_s=0.02)
    if expected is not None:
        assert [r["id"] for r in seen["replicas"]] == expected, seen
    return seen


def add(c, number, more="", node=None):
    answer = c.ok("ADD REPLICA %s%s" % (address(c, number), more), node=node)
    c.replica_count += 1
    return answer


def remove(c, what, node=None):
    answer = c.ok("REMOVE REPLICA " + what, node=node)
    c.replica_count -= 1
    return answer


def in_background(function, *arguments):
    """Runs function in a thread; result() waits for what it returned or raised."""
    box = {}

    def run():
        try:
            box["value"] = function(*arguments)
        except Exception as e:  # pylint: disable=broad-except
            box["error"] = e
    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result(timeout_s=60):
        thread.join(timeout_s)
        assert not thread.is_alive(), "%s does not return" % function.__name__
        return box
    return result


# -- roads


@scenario(timeout_s=60)
def a_replica_is_added_and_removed_by_sql(c):
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    assert "node4" in add(c, 4)["message"]
    rows = c.ok("show replicas ;", format="objects")["rows"]
    assert [r["id"] for r in rows] == ["node1", "node2", "node3", "node4"], rows
    assert [r["role"] for r in rows] == ["master", "replica", "replica", "replica"], rows
    assert all(r["voting"] == 1 and r["member"] == "voter" for r in rows), rows
    assert rows[3]["address"] == address(c, 4) and rows[3]["replication"] == address(c, 104), rows
    lsn = c.ok("INSERT INTO t VALUES (2)")["lsn"]
    assert c.query("SELECT sum(v) FROM t", node="node4", consistency="session", min_lsn=lsn).value == 3
    c.wait_all_up()
    c.wait_converged()
    pid = c.pid("node2")
    remove(c, "node2")
    settled(c, ["node1", "node3", "node4"])
    c.wait(lambda: not alive(pid), 10, "node2's process to end")
    assert not os.path.exists(os.path.join(c.data_dir, "node2"))
    assert os.path.isdir(os.path.join(c.data_dir, "node2.removed"))
    assert c.ok("INSERT INTO t VALUES (3)")["lsn"] > lsn
    assert [n["id"] for n in c.status()["nodes"]] == ["node1", "node3", "node4"]
    assert all(n["voting"] for n in c.status()["nodes"])
    c.wait_converged()


@scenario(timeout_s=60)
def the_command_line_adds_shows_and_removes(c):
    done = c.command("add-replica", address(c, 4))
    assert done.returncode == 0 and done.stdout == "node4 is a voting member\n", done
    done = c.command("add-replica", address(c, 105), "--readonly")  # the replication address of node5
    assert done.returncode == 0 and done.stdout == "node5 is a member that does not vote\n", done
    assert voters(c) == ["node1", "node2", "node3", "node4"]
    text = c.command("replicas").stdout
    assert "node5" in text and text.splitlines()[0].split() == [
        "ID", "ADDRESS", "REPLICATION", "ROLE", "VOTING", "STATE", "DURABLE", "APPLIED", "LAG"], text
    done = c.command("remove-replica", address(c, 204))  # its ack address
    assert done.returncode == 0 and done.stdout == "node4 is removed\n", done
    done = c.command("remove-replica", "node5")
    assert done.returncode == 0, done
    c.replica_count = 2
    settled(c, ["node1", "node2", "node3"])
    for words in (["remove-replica", "node4"], ["remove-replica", address(c, 9)], ["add-replica", "nonsense"],
                  ["add-replica"], ["replicas", "extra"]):
        done = c.command(*words)
        assert done.returncode == 2 and done.stderr.strip(), (words, done)


@scenario(timeout_s=60)
def replicas_forward_changes_of_the_members(c):
    c.ok("CREATE TABLE t(v)")
    add(c, 4, node="node3")
    assert len(c.query("SHOW REPLICAS", node="node2").rows) == 4
    remove(c, address(c, 2), node="node3")
    settled(c, ["node1", "node3", "node4"])


@scenario(timeout_s=60)
def wrong_requests_say_what_is_wrong_and_change_nothing(c):
    before = members(c)
    for sql, http, code, words in (
            ("ADD REPLICA", 400, "BAD_REQUEST", "ADD REPLICA host:port"),
            ("ADD REPLICA a b c", 400, "BAD_REQUEST", "ADD REPLICA host:port"),
            ("ADD REPLICA nowhere", 400, "BAD_REQUEST", "host:port"),
            ("ADD REPLICA 192.0.2.7:8084", 400, "BAD_REQUEST", "no address of this host"),
            ("ADD REPLICA %s; SELECT 1" % address(c, 4), 400, "BAD_REQUEST", "alone"),
            ("ADD REPLICA " + address(c, 0), 400, "BAD_REQUEST", "endpoint"),
            ("ADD REPLICA " + address(c, 2), 409, "CONFLICT", "node2 is a member already"),
            ("ADD REPLICA " + address(c, 2, 100), 409, "CONFLICT", "node2 is a member already"),
            ("REMOVE REPLICA node9", 404, "NOT_FOUND", "node9"),
            ("REMOVE REPLICA " + address(c, 9), 404, "NOT_FOUND", address(c, 9)),
            ("SHOW REPLICAS please", 400, "BAD_REQUEST", "SHOW REPLICAS")):
        failed = c.query(sql).must_fail(http, code)
        assert words in failed["message"], (sql, failed)
    c.query(statements=[{"sql": "SHOW REPLICAS"}, {"sql": "SELECT 1"}]).must_fail(400, "BAD_REQUEST")
    c.query("DROP TABLE _grizzly_members").must_fail(400, "SQL_ERROR")  # there is none yet
    c.query("CREATE TABLE _grizzly_mine(x)").must_fail(403, "FORBIDDEN")
    after = members(c)
    assert [r["id"] for r in after["replicas"]] == [r["id"] for r in before["replicas"]]
    assert after["version"] == before["version"] == 0


@scenario(timeout_s=60, replicas=0)
def the_last_voter_stays_and_one_node_becomes_three(c):
    failed = c.query("REMOVE REPLICA node1").must_fail(409, "CONFLICT")
    assert "only voting member" in failed["message"]
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    add(c, 2)
    add(c, 3)
    c.wait_all_up()
    c.kill("node1")
    c.wait_ready()
    assert c.status()["master"] != "node1"
    assert c.query("SELECT sum(v) FROM t").value == 1
    c.query("UPDATE _grizzly_members SET state = 'voter'").must_fail(403, "FORBIDDEN")
    settled(c, ["node1", "node2", "node3"])


@scenario(timeout_s=60, replicas=1)
def the_master_hands_over_before_it_is_removed(c):
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
    add(c, 3)
    c.wait_all_up()
    load = Load(c, writers=2)
    load.wait_more(20)
    for expected in (["node2", "node3"], None):
        master = c.master()
        if expected is None:
            break
        remove(c, master)
        settled(c, expected)
    load.wait_more(20)
    load.stop()
    load.verify()
    assert load.refused == 0


@scenario(timeout_s=60)
def an_address_of_its_own_gets_the_next_number(c):
    port = c.port + 50
    c.ok("ADD REPLICA 127.0.0.1:%d" % port)
    c.replica_count += 1
    rows = {r["id"]: r for r in settled(c)["replicas"]}
    assert rows["node4"]["address"].endswith(":%d" % port), rows
    assert rows["node4"]["replication"].endswith(":%d" % (port + 100)), rows
    remove(c, "node4")
    settled(c, ["node1", "node2", "node3"])
    add(c, 4)  # the number is used up: the address is given to the next one
    rows = {r["id"]: r for r in settled(c)["replicas"]}
    assert sorted(rows) == ["node1", "node2", "node3", "node5"], rows
    assert rows["node5"]["address"] == address(c, 4), rows


# -- quorums


def writes_work(c):
    return c.query("INSERT INTO q VALUES (1)").ok


def freeze_all(c, nodes):
    return [c.freeze_pid(c.last_pids[n]) for n in nodes]


@scenario(timeout_s=90, settings=SETTINGS)
def the_quorum_follows_the_members(c):
    c.ok("CREATE TABLE q(v)")
    add(c, 4)
    add(c, 5)
    settled(c, ["node1", "node2", "node3", "node4", "node5"])
    master = c.status()["master"]
    others = [n for n in ids(c) if n != master]
    supervisor = c.freeze("supervisor")
    frozen = freeze_all(c, others[:2])
    assert writes_work(c), "two of five may be away"
    frozen += freeze_all(c, others[2:3])
    c.query("INSERT INTO q VALUES (2)").must_fail(503, "NO_QUORUM")
    for pid in frozen + [supervisor]:
        c.thaw(pid)
    c.wait_writable()
    settled(c)
    master = c.status()["master"]
    others = [n for n in ids(c) if n != master]
    for node in others[:2]:
        remove(c, node)
    left = settled(c)
    assert len(left["replicas"]) == 3
    supervisor = c.freeze("supervisor")
    frozen = freeze_all(c, others[2:3])
    assert writes_work(c), "one of three may be away"
    frozen += freeze_all(c, others[3:])
    c.query("INSERT INTO q VALUES (3)").must_fail(503, "NO_QUORUM")
    for pid in frozen + [supervisor]:
        c.thaw(pid)
    c.wait_writable()
    settled(c)
    c.wait_converged()


@scenario(timeout_s=60, settings=SETTINGS)
def a_removal_that_would_leave_no_quorum_is_refused(c):
    c.ok("CREATE TABLE q(v)")
    master = c.master()
    first, second = c.replicas()
    pid = c.freeze(first)
    c.wait(lambda: c.node(first)["state"] == "hung", 10, "%s to count as hung" % first)
    answer = c.query("REMOVE REPLICA " + second)
    c.thaw(pid)
    failed = answer.must_fail(409, "CONFLICT")
    assert "quorum" in failed["message"], failed
    settled(c, sorted([master, first, second]))
    assert writes_work(c)


@scenario(timeout_s=90, replicas=1, settings=SETTINGS)
def a_readonly_replica_serves_reads_and_never_counts(c):
    c.ok("CREATE TABLE q(v)")
    add(c, 3, " NONVOTING")
    add(c, 4, " readonly")
    settled(c, ["node1", "node2", "node3", "node4"])
    assert voters(c) == ["node1", "node2"]
    lsn = c.ok("INSERT INTO q VALUES (7)")["lsn"]
    for node in ("node3", "node4"):
        assert c.query("SELECT v FROM q", node=node, consistency="session", min_lsn=lsn).value == 7
    done = c.command("switchover", "--to", "node3")
    assert done.returncode == 1 and "no voting member" in done.stderr, done
    c.wait_all_up()
    master, replica = c.last_master, [n for n in ("node1", "node2") if n != c.last_master][0]
    supervisor = c.freeze("supervisor")
    frozen = freeze_all(c, [replica])
    c.query("INSERT INTO q VALUES (8)").must_fail(503, "NO_QUORUM")
    for pid in frozen + [supervisor]:
        c.thaw(pid)
    c.wait_writable()
    for _ in range(3):
        c.wait_all_up()
        c.kill(c.master())
        c.wait_ready()
        assert c.master() in ("node1", "node2")
    c.wait_all_up()
    c.wait_converged()
    remove(c, "node3")
    settled(c, ["node1", "node2", "node4"])


# -- in the middle of a change


def obstruct(c, node):
    """Makes the node's process fail at its start until the function returned is called."""
    path = os.path.join(c.data_dir, "run", node + ".ctl")  # its control socket cannot be made
    os.mkdir(path)
    return lambda: os.rmdir(path)


def freeze_starting(c, node):
    """Stops the node's process in the middle of its start; one that has just ended is followed by another."""
    def frozen():
        for pid in tagged_pids(c.ctx.directory):  # without asking anybody: there is little time
            try:
                with open("/proc/%d/cmdline" % pid, "rb") as f:
                    found = node.encode() in f.read().split(b"\0")
                if found and process_state(c.freeze_pid(pid)) == "T":
                    return pid
            except OSError:
                pass  # it has ended
        return None
    return c.wait(frozen, 10, "%s to be stopped while it starts" % node, interval_s=0.005)


@scenario(timeout_s=60)
def one_change_at_a_time_and_removing_a_learner_undoes_it(c):
    c.ok("CREATE TABLE t(v)")
    clear = obstruct(c, "node4")
    adding = in_background(c.query, "ADD REPLICA " + address(c, 4))
    starting = freeze_starting(c, "node4")  # or it fails too often, and is given up, before all this is asked
    c.wait(lambda: "node4" in ids(c), 10, "node4 to be a member")
    assert "node4 is being added" in members(c)["change"]
    for sql in ("ADD REPLICA " + address(c, 5), "REMOVE REPLICA node3"):
        failed = c.query(sql).must_fail(409, "CONFLICT")
        assert "node4 is being added" in failed["message"], failed
    assert voters(c) == ["node1", "node2", "node3"]
    c.thaw(starting)
    assert "undone" in c.ok("REMOVE REPLICA node4")["message"]
    failed = adding()["value"].must_fail(409, "CONFLICT")
    assert "node4 was not added" in failed["message"], failed
    clear()
    settled(c, ["node1", "node2", "node3"])
    add(c, 4)  # it never voted, so its number is free
    settled(c, ["node1", "node2", "node3", "node4"])


@scenario(timeout_s=60)
def a_learner_that_cannot_start_is_given_up(c):
    c.ok("CREATE TABLE t(v)")
    clear = obstruct(c, "node4")
    failed = c.query("ADD REPLICA " + address(c, 4), timeout_ms=50000).must_fail(409, "CONFLICT")
    assert "node4 was not added" in failed["message"], failed
    clear()
    settled(c, ["node1", "node2", "node3"])
    add(c, 4)
    settled(c, ["node1", "node2", "node3", "node4"])


VICTIMS = {"master": ("master",), "newcomer": ("newcomer",), "supervisor": ("supervisor",)}


def kill_now(c, victim, number):
    """Kills it, if it is there at this moment; the supervisor is started again."""
    if victim == "supervisor":
        c.kill("supervisor")
        c.start_supervisor()
        return
    status = c.status()
    node = status["master"] if victim == "master" else "node%d" % number
    pids = {n["id"]: n["pid"] for n in status["nodes"]}
    if pids.get(node):
        try:
            os.kill(pids[node], signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended


@scenario(timeout_s=120, cases=VICTIMS)
def a_change_survives_the_death_of(c, victim):
    load = Load(c, writers=3)
    load.wait_more(50)
    for round_number, delay_s in enumerate((0.0, 0.02, 0.08, 0.3)):
        number = 4 + round_number
        adding = in_background(c.query, "ADD REPLICA " + address(c, number))
        c.wait(lambda number=number: "node%d" % number in [n["id"] for n in c.status()["nodes"]], 10, "the new node")
        time.sleep(delay_s)  # where exactly it hits is left to chance; every place must be safe
        kill_now(c, victim, number)
        adding()  # an answer of any kind
        seen = settled(c)
        present = [r["id"] for r in seen["replicas"]]
        assert "node%d" % number in present, "what was begun is completed: %s" % seen
        removing = in_background(c.query, "REMOVE REPLICA node%d" % number)
        time.sleep(delay_s / 4)
        kill_now(c, victim, number)
        removing()
        seen = settled(c)
        if "node%d" % number in [r["id"] for r in seen["replicas"]]:  # the request did not get through
            c.ok("REMOVE REPLICA node%d" % number)
            seen = settled(c)
        assert len(seen["replicas"]) == 3, seen
    load.wait_more(30)
    load.stop()
    load.verify()
    assert load.refused == 0
    c.wait_converged()


@scenario(timeout_s=90)
def members_survive_a_kill_of_everything(c):
    load = Load(c, writers=2)
    add(c, 4)
    add(c, 5, " READONLY")
    load.wait_more(30)
    remove(c, "node2")
    expected = ["node1", "node3", "node4", "node5"]
    settled(c, expected)
    adding = in_background(c.query, "ADD REPLICA " + address(c, 6))
    time.sleep(0.05)
    load.stopping.set()
    c.kill_all()
    adding()
    c.start(all_up=False)
    seen = settled(c)
    assert [r["id"] for r in seen["replicas"]] in (expected, expected + ["node6"]), seen
    assert [r["voting"] for r in seen["replicas"]][:4] == [True, True, True, False]
    load.stop()
    load.verify()
    c.wait_converged()
    c.stop()
    c.start(all_up=False)
    assert [r["id"] for r in settled(c)["replicas"]] == [r["id"] for r in seen["replicas"]]
    c.wait_writable()


@scenario(timeout_s=60)
def the_log_knows_the_members_when_the_term_file_is_older(c):
    c.ok("CREATE TABLE t(v)")
    old = os.path.join(c.ctx.directory, "old.term")
    with open(os.path.join(c.data_dir, "supervisor.term"), "rb") as f, open(old, "wb") as copy:
        copy.write(f.read())
    add(c, 4)
    add(c, 5)
    settled(c)
    c.kill_all()
    os.replace(old, os.path.join(c.data_dir, "supervisor.term"))
    c.start(all_up=False)
    settled(c, ["node1", "node2", "node3", "node4", "node5"])
    c.wait_writable()
    c.wait_converged()


@scenario(timeout_s=60)
def replicas_in_the_configuration_is_not_how_members_change(c):
    add(c, 4)
    settled(c)
    c.stop()
    c.config["replicas"] = 3
    c.write_config()
    done = c.command("run")
    assert done.returncode == 2 and "add-replica" in done.stderr, done
    c.config["replicas"] = 2
    c.write_config()
    c.start(all_up=False)
    settled(c, ["node1", "node2", "node3", "node4"])
    assert process_state(c.pid("node4")) is not None
