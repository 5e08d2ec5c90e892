"""Living on a machine: what the service manager is told, reloading, check-config, and the files that are installed."""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from cluster import alive
from harness import scenario


class Manager:
    """A service manager's end of the notify socket."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.seen = []

    def read(self, wanted, deadline_s):
        """Datagrams until one has a line that begins with wanted; that line."""
        give_up = time.monotonic() + deadline_s
        while True:
            self.socket.settimeout(max(0.01, give_up - time.monotonic()))
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except socket.timeout:
                raise AssertionError("waited for %s, heard %s" % (wanted, self.seen)) from None
            self.seen += lines
            for line in lines:
                if line.startswith(wanted):
                    return line

    def drain(self):
        self.socket.settimeout(0)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def start_notified(c, manager, watchdog_us):
    before = dict(os.environ)
    try:
        os.environ.update(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC=str(watchdog_us))
        return c.start_supervisor()
    finally:
        os.environ.clear()
        os.environ.update(before)


def with_config(c, **changes):
    c.config.update(changes)
    c.write_config()


@scenario(start=False, timeout_s=60)
def service_manager_hears_ready_alive_reloading_and_stopping(ctx):
    c = ctx.cluster(replicas=1)
    with Manager(ctx.directory) as manager:
        supervisor = start_notified(c, manager, 400000)
        manager.read("READY=1", 20 * ctx.slow)
        assert "MAINPID=%d" % supervisor.pid in manager.seen, manager.seen
        c.wait_ready()
        c.wait_all_up()
        for _ in range(3):
            manager.read("WATCHDOG=1", 20 * ctx.slow)
        told = "STATUS=node1 is master of term 1, 2 nodes run"
        if told not in manager.seen:
            manager.read(told, 20 * ctx.slow)
        for pid in c.pids().values():
            with open("/proc/%d/environ" % pid, "rb") as f:
                environment = f.read()
            assert b"NOTIFY_SOCKET" not in environment and b"WATCHDOG" not in environment, environment
        # A supervisor that stands still does not answer for itself.
        c.freeze("supervisor")
        manager.drain()
        manager.socket.settimeout(0.5)
        try:
            raise AssertionError("a frozen supervisor said %r" % manager.socket.recv(4096))
        except socket.timeout:
            pass
        c.thaw(supervisor.pid)
        manager.read("WATCHDOG=1", 20 * ctx.slow)
        c.signal("supervisor", signal.SIGHUP)
        manager.read("RELOADING=1", 20 * ctx.slow)
        manager.read("READY=1", 20 * ctx.slow)
        c.signal("supervisor", signal.SIGTERM)
        manager.read("STOPPING=1", 20 * ctx.slow)
        assert supervisor.wait(timeout=20 * ctx.slow) == 0
        c.supervisor = None


@scenario(timeout_s=60, replicas=1)
def reload_takes_up_logging_and_names_the_rest(c):
    def log(name):
        with open(os.path.join(c.data_dir, "log", name + ".log")) as f:
            return f.read().splitlines()
    pids = c.pids()
    with_config(c, logging={"level": "warn", "format": "json"}, commit_timeout_ms=4000, http={"workers": 3})
    done = c.command("reload")
    assert done.returncode == 0, done.stderr
    assert 'reloaded "logging" (level warn)' in done.stdout, done.stdout
    rest = done.stdout.split(" and started: ")[1].split(", ")
    assert sorted(r.strip() for r in rest) == ["commit_timeout_ms", "http.workers"], done.stdout
    with_config(c, logging={"level": "info", "format": "json"})
    assert c.command("reload").returncode == 0
    line = json.loads(c.wait(lambda: [s for s in log("node1") if s.startswith("{")], 10, "a line of JSON")[-1])
    assert set(line) == {"time", "process", "level", "text"} and line["process"] == "node1", line
    # Wrong settings change nothing, and are told.
    with_config(c, logging={"level": "loud"})
    done = c.command("reload")
    assert done.returncode == 1 and "nothing is reloaded" in done.stderr and "logging.level" in done.stderr, done
    assert c.pids() == pids and all(alive(p) for p in pids.values()), "reloading ended a process"
    c.wait_writable()


@scenario(timeout_s=60, replicas=1)
def sighup_to_everything_ends_nothing(c):
    pids = c.pids()
    for _ in range(50):
        for pid in [c.supervisor.pid, *pids.values()]:
            os.kill(pid, signal.SIGHUP)
    c.wait_writable()
    assert c.pids() == pids


@scenario(timeout_s=60, replicas=1)
def check_config_prints_what_takes_effect(c):
    done = c.command("check-config")
    assert done.returncode == 0, done.stderr
    effective = json.loads(done.stdout)
    assert effective["cluster"] == c.config["cluster"] and effective["http_port"] == c.port, effective
    assert effective["heartbeat"]["interval_ms"] == 100 and effective["logging"]["level"] == "info", effective
    assert "replicas 1" in done.stderr, "a cluster of two that cannot lose one is worth a word: " + done.stderr
    # What it prints is a configuration.
    path = os.path.join(c.ctx.directory, "effective.json")
    with open(path, "w") as f:
        f.write(done.stdout)
    again = subprocess.run([c.supervisor_bin, "check-config", "--data-dir", c.data_dir, "--config", path],
                           capture_output=True, text=True, env=c.environment(), check=False)
    # The ports are in use: by the cluster that runs, but a file is not known to be its own.
    assert again.returncode == 2 and "http_port" in again.stderr, again
    c.stop()
    again = subprocess.run([c.supervisor_bin, "check-config", "--config", path], capture_output=True, text=True,
                           env=c.environment(), check=False)
    assert again.returncode == 0 and json.loads(again.stdout) == effective, again


@scenario(start=False, timeout_s=30, cases={
    "misspelt": ('{"cluster": "%s", "heartbeat": {"intervall_ms": 5}}', "did you mean \"interval_ms\""),
    "no_identity": ("{}", "cluster"), "no_address": ('{"cluster": "%s", "bind": "192.0.2.1"}', "192.0.2.1"),
    "bounds": ('{"cluster": "%s", "log": {"max_bytes": 1}}', "log.max_bytes"),
    "level": ('{"cluster": "%s", "logging": {"format": "xml"}}', "\"text\" or \"json\"")})
def check_config_says_what_is_wrong(ctx, text, culprit):
    c = ctx.cluster(replicas=1)
    with open(os.path.join(c.data_dir, "cluster.json"), "w") as f:
        f.write(text.replace("%s", c.config["cluster"]))
    before = sorted(os.listdir(c.data_dir))
    done = c.command("check-config")
    assert done.returncode == 2 and culprit in done.stderr and done.stderr.startswith("error: "), done
    assert sorted(os.listdir(c.data_dir)) == before, "it only looks"


def program(ctx, name):
    found = shutil.which(name)
    if found is None:
        ctx.skip("%s is not installed" % name)
    return found


@scenario(start=False, timeout_s=60, quick=False)
def service_file_is_clean(ctx):
    verify = program(ctx, "systemd-analyze")
    with open(os.path.join(ctx.build_dir, "packaging", "grizzly.service")) as f:
        unit = f.read()
    assert "@" not in unit.replace("@system-service", ""), "something was not filled in"
    path = os.path.join(ctx.directory, "grizzly.service")
    with open(path, "w") as f:
        for line in unit.splitlines():
            if line.startswith("Documentation="):  # the manual pages are not installed here
                continue
            if line.startswith("Exec"):
                line = line.split("=")[0] + "=" + os.path.join(ctx.build_dir, "grizzly-supervisor")
            f.write(line + "\n")
    done = subprocess.run([verify, "verify", "--man=no", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "grizzly" not in done.stderr, done.stderr


@scenario(start=False, timeout_s=60, quick=False)
def manual_pages_are_clean(ctx):
    mandoc = program(ctx, "mandoc")
    pages = sorted(glob.glob(os.path.join(ctx.source_dir, "docs", "man", "*.[1-9]")))
    assert len(pages) >= 4, pages
    done = subprocess.run([mandoc, "-Tlint", "-Wwarning", *pages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@scenario(start=False, timeout_s=60, quick=False)
def completion_offers_every_command_and_option(ctx):
    """The program's own help is what there is to offer."""
    script = os.path.join(ctx.source_dir, "packaging", "grizzly-supervisor.bash")
    supervisor = os.path.join(ctx.build_dir, "grizzly-supervisor")
    usage = subprocess.run([supervisor, "--help"], capture_output=True, text=True, check=True).stdout

    def offered(*words):
        text = ". '%s'; COMP_WORDS=(%s ''); COMP_CWORD=%d; _grizzly_supervisor; printf '%%s\\n' \"${COMPREPLY[@]}\"" % (
            script, " ".join(words), len(words))
        return set(subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout.split())
    command, options = None, {}
    for line in usage.splitlines():
        if line.startswith("  ") and line[2] not in " -":
            command = line.split()[0]
            options[command] = {"--data-dir"}
        elif line.startswith("      --") and command:
            options[command].update(word.rstrip(",") for word in line.split("  ")[3].split() if word.startswith("--"))
    assert len(options) >= 14, options
    assert set(options) <= offered("grizzly-supervisor"), set(options) - offered("grizzly-supervisor")
    for command, known in options.items():
        got = offered("grizzly-supervisor", command)
        assert known <= got, (command, known - got)


def restart(c, what):
    return subprocess.run([c.supervisor_bin, "restart", what, "--data-dir", c.data_dir], capture_output=True, text=True,
                          env=c.environment(), check=False, timeout=60 * c.ctx.slow)


@scenario(start=False, timeout_s=60)
def service_manager_sees_a_replaced_supervisor_go_on(ctx):
    c = ctx.cluster(replicas=1)
    with Manager(ctx.directory) as manager:
        supervisor = start_notified(c, manager, 400000)
        manager.read("READY=1", 20 * ctx.slow)
        c.wait_ready()
        c.wait_all_up()
        pids = c.pids()
        manager.seen.clear()
        done = restart(c, "supervisor")
        assert done.returncode == 0, done.stderr
        manager.read("READY=1", 20 * ctx.slow)
        assert "MAINPID=%d" % supervisor.pid in manager.seen, manager.seen
        manager.read("WATCHDOG=1", 20 * ctx.slow)
        assert c.pids() == pids and supervisor.poll() is None
        c.kill("node2")  # its successor is its parent, too, and sees it end
        c.wait(lambda: c.pids().get("node2") not in (None, pids["node2"]), 20, "node2 to be started again")
        c.stop()


@scenario(timeout_s=90, replicas=1)
def administrators_leave_a_trace(c):
    def audit():
        with open(os.path.join(c.data_dir, "log", "audit.jsonl")) as f:
            return [json.loads(line) for line in f]
    target = c.replicas()[0]
    assert c.command("switchover", "--to", target).returncode == 0
    assert c.command("switchover", "--to", "node9").returncode == 2
    assert c.command("reload").returncode == 0
    c.command("status")
    wrong = c.query("REMOVE REPLICA 127.0.0.1:1")
    assert not wrong.ok, wrong.text
    assert c.command("backup", "--to", os.path.join(c.ctx.directory, "copy.db")).returncode == 0
    os.kill(c.supervisor.pid, signal.SIGHUP)
    c.wait(lambda: audit()[-1]["by"] == "SIGHUP", 10, "the signal to be noted")
    lines = audit()
    assert [s["action"] for s in lines] == ["run", "switchover", "switchover", "reload", "remove-replica", "backup",
                                            "reload"], lines
    assert all(set(s) - {"request_id"} == {"time", "process", "action", "detail", "by", "outcome"} for s in lines), lines
    assert lines[1]["detail"] == target and "(uid %d, pid " % os.getuid() in lines[1]["by"], lines[1]
    assert lines[2]["outcome"].startswith("error: there is no node"), lines[2]
    assert lines[4]["by"] == "the first token from 127.0.0.1" and lines[4]["detail"] == "127.0.0.1:1", lines[4]
    assert lines[5]["process"].startswith("node") and lines[5]["outcome"] == "begun", lines[5]
    with open(os.path.join(c.data_dir, "log", "audit.jsonl")) as f:
        assert c.token not in f.read()
    assert os.stat(os.path.join(c.data_dir, "log", "audit.jsonl")).st_mode & 0o777 == 0o600
    c.stop()
    assert audit()[-1]["action"] == "stop"
