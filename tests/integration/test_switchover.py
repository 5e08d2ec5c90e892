"""A planned move of the master: no request fails, and the old master stays as a replica."""
from harness import scenario
from load import Load


def move(c, load, *words):
    old = c.master()
    before = c.pids()
    done = c.command("switchover", *words)
    assert done.returncode == 0, "exit %d: %s%s" % (done.returncode, done.stdout, done.stderr)
    new = c.wait(lambda: c.status()["master"] not in (None, old) and c.status()["master"], 10, "the new master")
    load.wait_more(30)
    assert c.pids() == before, "a process was replaced: %s, then %s" % (before, c.pids())
    return old, new


@scenario(timeout_s=60, quick=("on_kept_connections",),
          cases={"on_kept_connections": (True,), "on_fresh_connections": (False,)})
def switchover_under_load_fails_no_request(c, keep_alive):
    load = Load(c, writers=6, keep_alive=keep_alive)
    load.wait_more(100)
    target = c.replicas()[1]
    old, new = move(c, load, "--to", target)
    assert new == target
    load.stop()
    assert not load.errors and not load.unknown, (load.errors, len(load.unknown))
    c.wait_all_up()
    assert c.node(old)["role"] == "replica"
    load.verify()
    c.wait_converged()
    c.ctx.note("longest gap %.0f ms" % load.longest_gap_ms())
    assert load.longest_gap_ms() < 1000 * c.ctx.slow


@scenario(timeout_s=60)
def switchover_chooses_a_target_itself(c):
    load = Load(c, writers=2)
    for _ in range(4):
        c.wait_all_up()
        move(c, load)
    load.stop()
    assert not load.errors, load.errors
    load.verify()
    c.wait_converged()


@scenario(timeout_s=60)
def switchover_there_and_back_keeps_everything(c):
    load = Load(c, writers=4)
    first = c.master()
    move(c, load)
    c.wait_all_up()
    _, new = move(c, load, "--to", first)
    assert new == first
    load.stop()
    assert not load.errors, load.errors
    load.verify()
    c.wait_converged()


@scenario(timeout_s=60)
def switchover_to_nobody_is_refused_and_changes_nothing(c):
    master = c.master()
    for words in (["--to", "node9"], ["--to", ""], ["--to", "nonsense"]):
        done = c.command("switchover", *words)
        assert done.returncode in (1, 2) and (done.stderr or done.stdout).strip(), (words, done)
    done = c.command("switchover", "--to", master)
    assert done.returncode in (0, 1, 2), done
    assert c.status()["master"] == master
    c.wait_writable()


@scenario(timeout_s=60)
def switchover_to_a_frozen_replica_is_given_up(c):
    c.ok("CREATE TABLE g(v)")
    master, target = c.master(), c.replicas()[0]
    pid = c.freeze(target)
    done = c.command("switchover", "--to", target, timeout_s=40)
    c.thaw(pid)
    assert done.returncode != 0 or c.status()["master"] == target, (done.stdout, done.stderr)
    c.wait_writable()
    assert c.status()["master"] in (master, target)
    c.wait_all_up()
    c.wait_converged()


@scenario(timeout_s=60, replicas=0)
def switchover_without_replicas_is_refused(c):
    done = c.command("switchover")
    assert done.returncode in (1, 2) and (done.stderr or done.stdout).strip(), done
    c.wait_writable()
