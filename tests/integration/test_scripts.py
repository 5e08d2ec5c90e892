"""scripts/start-cluster.sh and stop-cluster.sh as a user types them."""
import os
import signal
import subprocess
import time

from cluster import alive, tagged_pids
from harness import scenario


def run_script(c, name, *words, timeout_s=60):
    return subprocess.run([os.path.join(c.ctx.source_dir, "scripts", name), *words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=c.environment(), check=False, cwd=c.ctx.directory,
                          timeout=timeout_s * c.ctx.slow)


def fresh(ctx):
    c = ctx.cluster(replicas=1)
    os.unlink(os.path.join(c.data_dir, "cluster.json"))
    return c


def start(c, *words):
    return run_script(c, "start-cluster.sh", "--replicas", "1", "--http-port", str(c.port), "--data-dir", c.data_dir,
                      *words)


def kill_supervisor(c):
    """kill -9 of the one that start-cluster.sh left in the background."""
    found = []
    for pid in tagged_pids(c.ctx.directory):
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            words = f.read().split(b"\0")
        if words[0].endswith(b"grizzly-supervisor"):
            found.append(pid)
    assert len(found) == 1, found
    os.kill(found[0], signal.SIGKILL)
    c.wait(lambda: not alive(found[0]), 10, "the supervisor to end")


@scenario(start=False, timeout_s=90, quick=False)
def start_twice_use_and_stop_twice(ctx):
    c = fresh(ctx)
    first = start(c)
    assert first.returncode == 0, first.stdout + first.stderr
    for word in ("http://127.0.0.1:%d" % c.port, os.path.join(c.data_dir, "token"), "curl", "/query"):
        assert word in first.stdout, (word, first.stdout)
    pids = c.pids()
    second = start(c)
    assert second.returncode == 0 and "already" in second.stdout, second.stdout + second.stderr
    assert c.pids() == pids
    curl = next(line for line in first.stdout.splitlines() if "curl" in line)
    done = subprocess.run(["bash", "-c", curl[curl.index("curl"):]], capture_output=True, text=True, check=False)
    assert '"status":"ok"' in done.stdout, (curl, done.stdout, done.stderr)
    stopped = run_script(c, "stop-cluster.sh", "--data-dir", c.data_dir)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not any(alive(p) for p in pids.values())
    again = run_script(c, "stop-cluster.sh", "--data-dir", c.data_dir)
    assert again.returncode == 0 and "no cluster" in again.stdout, again.stdout + again.stderr


@scenario(start=False, timeout_s=90)
def start_adopts_when_only_the_supervisor_died(ctx):
    c = fresh(ctx)
    assert start(c).returncode == 0
    pids = c.pids()
    kill_supervisor(c)
    again = start(c)
    assert again.returncode == 0, again.stdout + again.stderr
    c.wait_all_up()
    assert c.pids() == pids
    assert run_script(c, "stop-cluster.sh", "--data-dir", c.data_dir).returncode == 0


@scenario(start=False, timeout_s=90, quick=False)
def stop_ends_nodes_whose_supervisor_died(ctx):
    c = fresh(ctx)
    assert start(c).returncode == 0
    pids = c.pids()
    kill_supervisor(c)
    done = run_script(c, "stop-cluster.sh", "--data-dir", c.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(alive(p) for p in pids.values()), done.stdout


@scenario(start=False, timeout_s=90, quick=False)
def foreground_prints_the_endpoint_and_ends_on_interrupt(ctx):
    c = fresh(ctx)
    out = os.path.join(ctx.directory, "foreground.out")
    with open(out, "wb") as f:
        p = subprocess.Popen([os.path.join(ctx.source_dir, "scripts", "start-cluster.sh"), "--foreground", "--replicas",
                              "1", "--http-port", str(c.port), "--data-dir", c.data_dir], stdin=subprocess.DEVNULL,
                             stdout=f, stderr=f, env=c.environment(), start_new_session=True)
    c.wait(lambda: "http://127.0.0.1:%d" % c.port in open(out).read(), 30, "the endpoint to be printed")
    pids = c.pids()
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=20 * ctx.slow) == 0, open(out).read()
    time.sleep(0.05)
    assert not any(alive(x) for x in pids.values())


@scenario(start=False, timeout_s=30, cases={
    "unknown": (["--dance"],), "no_value": (["--replicas"],), "no_number": (["--replicas", "two"],),
    "too_many": (["--replicas", "31"],), "bad_port": (["--http-port", "0"],), "port_high": (["--http-port", "65400"],),
    "surplus": (["now"],), "huge": (["--http-port", "99999999999999999999"],)}, quick=False)
def bad_options_exit_2(ctx, words):
    c = fresh(ctx)
    done = run_script(c, "start-cluster.sh", *words)
    assert done.returncode == 2 and done.stderr.strip(), (done.returncode, done.stdout, done.stderr)
    assert not os.path.exists(os.path.join(ctx.directory, "data")), "something was created"


@scenario(start=False, timeout_s=30, quick=False)
def help_is_printed(ctx):
    c = fresh(ctx)
    for name in ("start-cluster.sh", "stop-cluster.sh", "run-tests.sh"):
        done = run_script(c, name, "--help")
        assert done.returncode == 0 and "Usage" in done.stdout, (name, done)


@scenario(start=False, timeout_s=60, quick=False)
def start_on_a_port_in_use_fails_with_the_reason(ctx):
    import socket
    c = fresh(ctx)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", c.port))
        s.listen(1)
        done = start(c)
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    assert str(c.port) in done.stderr and "in use" in done.stderr.lower(), done.stderr
