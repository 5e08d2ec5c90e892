"""The timeline tells what happened, with the supervisor or without it, whatever was torn."""
import json
import os
import signal
import subprocess

from harness import scenario


def events(c, *words):
    done = c.command("events", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(c):
    return [e["event"] for e in events(c)]


def wait_for(c, name, **wanted):
    """The first event of that name with these fields."""
    def found():
        return [e for e in events(c) if e["event"] == name and all(e.get(k) == v for k, v in wanted.items())]
    return c.wait(found, 20, "an event %s %r" % (name, wanted))[0]


@scenario(timeout_s=60)
def failover_is_told_from_the_death_to_the_measured_outage(c):
    old = c.master()
    pid = c.last_pids[old]
    c.kill(old)
    c.wait(lambda: c.status()["master"] not in (None, old), 20, "a successor")
    c.wait_all_up()
    new = c.last_master
    ready = wait_for(c, "master-ready", node=new)
    everything = events(c)
    died = next(e for e in everything if e["event"] == "node-exit" and e["node"] == old)
    assert died["signal"] == signal.SIGKILL and died["lsn"] >= 1 and "restart_ms" in died, died
    assert any(e["event"] == "node-start" and e["node"] == old and e["pid"] == pid for e in everything)
    lost = next(e for e in everything if e["event"] == "master-lost")
    assert lost["node"] == old and "signal 9" in lost["text"], lost
    election = next(e for e in everything if e["event"] == "election")
    assert election["term"] == 2 and old in election["text"], election
    candidates = [e for e in everything if e["event"] == "candidate"]
    assert {e["node"] for e in candidates} == {"node1", "node2", "node3"}, candidates
    winner = next(e for e in candidates if "wins" in e["text"])
    assert winner["node"] == new and winner["lsn"] >= 1 and winner["last_term"] == 1, winner
    promotion = next(e for e in everything if e["event"] == "promotion")
    assert promotion["node"] == new and "promises" in promotion["text"], promotion
    assert 0 <= ready["outage_ms"] <= ready["outage_heard_ms"], ready
    order = [everything.index(e) for e in (died, lost, election, winner, promotion, ready)]
    assert order == sorted(order), order
    assert all(e["time"].endswith("Z") and len(e["time"]) == 24 for e in everything), everything
    c.ctx.note("outage %d ms, %d ms since the last heartbeat" % (ready["outage_ms"], ready["outage_heard_ms"]))


@scenario(timeout_s=60)
def hung_master_is_suspected_killed_and_fenced(c):
    old = c.master()
    c.freeze(old)
    c.wait(lambda: c.status()["master"] not in (None, old), 20, "a successor")
    missed = wait_for(c, "heartbeat-missed", node=old)
    assert missed["silent_ms"] > 0 and "stands still" in missed["text"], missed
    assert "no answer" in wait_for(c, "node-killed", node=old)["text"]
    wait_for(c, "fenced", node=old)
    assert wait_for(c, "master-ready", node=c.last_master)["outage_heard_ms"] >= missed["silent_ms"]


@scenario(timeout_s=60)
def switchover_and_supervisor_changes_are_told(c):
    old = c.master()
    target = c.replicas()[0]
    assert c.command("switchover", "--to", target).returncode == 0
    begun = wait_for(c, "switchover-begin", node=target)
    assert old in begun["text"], begun
    wait_for(c, "switchover-end")
    assert wait_for(c, "master-ready", node=target)["outage_ms"] >= 0
    c.kill("supervisor")
    c.start_supervisor()
    c.wait_all_up()
    for node in ("node1", "node2", "node3"):
        wait_for(c, "node-adopted", node=node)
    c.stop()
    told = names(c)  # nobody runs any more
    assert told[-1] == "supervisor-stop" and told.count("supervisor-start") == 2, told
    table = c.command("events").stdout.splitlines()
    assert table[0].split()[0] == "TIME" and len(table) == len(told) + 1, table[:3]
    assert [e["event"] for e in events(c, "--last", "2")] == told[-2:]


@scenario(timeout_s=60)
def events_are_followed(c):
    known = len(events(c))
    with subprocess.Popen([c.supervisor_bin, "events", "--data-dir", c.data_dir, "--json", "--follow"],
                          stdout=subprocess.PIPE, text=True, env=c.environment()) as follower:
        try:
            seen = [json.loads(follower.stdout.readline()) for _ in range(known)]
            c.kill(c.replicas()[0])
            while seen[-1]["event"] != "node-exit":
                seen.append(json.loads(follower.stdout.readline()))
            assert seen == events(c)[:len(seen)]
        finally:
            follower.kill()


@scenario(timeout_s=60)
def torn_line_and_full_file_are_survived(c):
    c.stop()
    path = os.path.join(c.data_dir, "log", "events.jsonl")
    before = names(c)
    with open(path, "ab") as f:
        f.write(b'{"time":"2026-01-01T00:00:0')
    done = c.command("events", "--json")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(before), done.stdout
    line = b'{"event":"filler","text":"%s"}\n' % (b"x" * 1000)
    with open(path, "ab") as f:
        f.write(b"\n")
        while f.tell() < (4 << 20) - 500:
            f.write(line)
    c.start()
    c.wait(lambda: "master-ready" in names(c), 20, "new events")
    assert os.path.getsize(path) < 1 << 20, "the file was not exchanged"
    told = names(c)
    assert told[:len(before)] == before and told[-1] != "filler", told[-5:]
    done = c.command("events", "--json")
    assert "1 damaged line skipped" in done.stderr, done.stderr


@scenario(timeout_s=60)
def refused_configuration_is_told(c):
    c.stop()
    path = os.path.join(c.data_dir, "cluster.json")
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(text.replace('"replicas": 2', '"replicas": 4'))
    assert c.command("run").returncode == 2
    refused = wait_for(c, "config-refused")
    assert "replicas" in refused["text"], refused


@scenario(timeout_s=60, replicas=0)
def master_that_dies_at_once_is_a_failover(c):
    """However soon the first master dies after its start."""
    c.kill("node1")
    c.wait(lambda: c.status()["failovers"] == 1, 20, "the failover to be counted")
    c.wait_all_up()
    assert "outage_ms" in wait_for(c, "master-ready", term=2)
