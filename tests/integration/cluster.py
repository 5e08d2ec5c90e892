"""A real cluster of real processes in a directory of its own.

Owns: the data directory, cluster.json, the block of ports, and the supervisor it starts. Every process started below
carries GRIZZLY_TEST_DIR in its environment, so kill_tagged() finds them all, adopted and orphaned ones too, whatever
a scenario did to them.
"""
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
import http.client

import sp
from client import Client, QueryFailed

PORT_FIRST, PORT_LAST, PORT_STEP = 10000, 32000, 310  # below the range the kernel hands out to clients
TAG = "GRIZZLY_TEST_DIR"
POLL_FIRST_S, POLL_LAST_S = 0.003, 0.025
CALL_TIMEOUT_S = 5  # the command line's
NOTICE_S = 0.5      # within which a supervisor hears of a node's end, if it runs at all
NOT_YET = (OSError, http.client.HTTPException, QueryFailed, KeyError, ValueError, TypeError, LookupError)


class ClusterError(AssertionError):
    pass


class Skip(Exception):
    """A scenario that cannot run here says why."""


def wait_until(condition, deadline_s, what, interval_s=None):
    """Polls until condition() is true and returns what it returned. A connection that fails counts as "not yet".

    Without an interval_s: more and more seldom, for many scenarios that wait on few processors wait for each other.
    """
    started = time.monotonic()
    give_up = started + deadline_s
    last = None
    while True:
        try:
            result = condition()
            if result:
                return result
            last = result
        except NOT_YET as e:
            last = e
        now = time.monotonic()
        if now > give_up:
            raise ClusterError("waited %.1f s for %s (last: %r)" % (deadline_s, what, last))
        time.sleep(min(POLL_FIRST_S + (now - started) / 20, POLL_LAST_S) if interval_s is None else interval_s)


def process_state(pid):
    """The letter of /proc/PID/stat; None when there is no such process. Z: it has ended, nobody asked."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return None


def alive(pid):
    """Whether it may still have files and ports: so it does until its last thread, not its first, has ended."""
    state = process_state(pid)
    if state != "Z":
        return state not in (None, "X")
    try:
        return len(os.listdir("/proc/%d/task" % pid)) > 1
    except OSError:
        return False


def rss_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def tagged_pids(directory):
    """Processes started for a scenario in directory or below it."""
    wanted = ("%s=%s" % (TAG, directory)).encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open("/proc/%s/environ" % entry, "rb") as f:
                environment = f.read().split(b"\0")
        except OSError:
            continue
        if any(v == wanted or v.startswith(wanted + b"/") for v in environment) and alive(int(entry)):
            found.append(int(entry))
    return found


def kill_tagged(directory):
    """Ends every process of directory; those that the first sweep's victims were just starting too. One that has lost its
    memory, and its tag with it, may still have its sockets: it is waited for until it has ended. False: some have not."""
    give_up, seen = time.monotonic() + 10, set()
    while time.monotonic() < give_up:
        pids = tagged_pids(directory)
        seen.update(pids)
        if not any(alive(pid) for pid in seen):
            return True
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    return False


def unmount_below(directory):
    with open("/proc/mounts") as f:
        points = [line.split()[1].replace("\\040", " ") for line in f]
    for point in points:
        if point.startswith(directory + "/"):
            subprocess.run(["umount", "-l", point], check=False)


def remove_directory(directory):
    kill_tagged(directory)
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)


class Ports:
    """A block of PORT_STEP free ports, reserved against other runners by a lock file until release()."""

    def __init__(self, replicas):
        lock_dir = os.path.join(os.environ.get("TMPDIR", "/tmp"), "grizzly-test-ports")
        os.makedirs(lock_dir, exist_ok=True)
        start = (os.getpid() * 7) % ((PORT_LAST - PORT_FIRST) // PORT_STEP)
        bases = list(range(PORT_FIRST, PORT_LAST, PORT_STEP))
        for base in bases[start:] + bases[:start]:
            self.lock = open(os.path.join(lock_dir, str(base)), "w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.lock.close()
                continue
            if all(self.free(p) for p in self.needed(base, replicas)):
                self.base = base
                return
            self.lock.close()
        raise ClusterError("no free block of ports between %d and %d" % (PORT_FIRST, PORT_LAST))

    @staticmethod
    def needed(base, replicas):
        nodes = range(1, replicas + 2)
        return [base] + [base + offset + i for offset in (0, 100, 200) for i in nodes]

    @staticmethod
    def free(port):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def release(self):
        self.lock.close()


class Cluster:
    """ctx: the scenario's Context (build directory, scratch directory, factor for deadlines)."""

    def __init__(self, ctx, replicas=2, settings=None, data_dir=None):
        self.ctx = ctx
        self.replica_count = replicas
        self.ports = Ports(replicas)
        self.port = self.ports.base
        self.data_dir = data_dir or os.path.join(ctx.directory, "d%d" % self.port)
        self.supervisor = None
        self.tls = None                 # the ssl.SSLContext of its clients; None: plain HTTP
        self.started = 0
        self.last_pids, self.last_master, self.last_replicas = {}, None, []
        self.supervisor_bin = os.path.join(ctx.build_dir, "grizzly-supervisor")
        os.makedirs(self.data_dir, exist_ok=True)
        self.config = {"cluster": uuid.uuid4().hex, "replicas": replicas, "bind": "127.0.0.1", "http_port": self.port}
        if ctx.slow > 1:  # a sanitizer's pauses are not a hang
            self.config["heartbeat"] = {"interval_ms": 100, "misses": 3 * ctx.slow, "stall_ms": 3000 * ctx.slow}
        for key, value in (settings or {}).items():
            if isinstance(value, dict):
                self.config.setdefault(key, {}).update(value)
            else:
                self.config[key] = value
        self.write_config()

    def write_config(self):
        path = os.path.join(self.data_dir, "cluster.json")
        with open(path, "w") as f:
            f.write("// written by the test harness\n")
            json.dump(self.config, f, indent="\t")

    # -- starting and stopping

    def environment(self):
        return self.ctx.environment()

    def start_supervisor(self):
        """Starts `grizzly-supervisor run` in the foreground of a session of its own; returns at once."""
        self.started += 1
        out = open(os.path.join(self.ctx.directory, "supervisor-%d-%d.out" % (self.port, self.started)), "ab")
        with out:
            self.supervisor = subprocess.Popen(
                [self.supervisor_bin, "run", "--data-dir", self.data_dir], stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, env=self.environment(), start_new_session=True)
        return self.supervisor

    def start(self, deadline_s=20, all_up=True):
        self.start_supervisor()
        self.wait_ready(deadline_s)
        if all_up:
            self.wait_all_up(deadline_s)
        return self

    def check_supervisor(self):
        if self.supervisor is not None and self.supervisor.poll() not in (None, -signal.SIGKILL):
            raise ClusterError("the supervisor ended with %s" % self.supervisor.returncode)

    def wait_ready(self, deadline_s=20):
        give_up = time.monotonic() + deadline_s * self.ctx.slow
        last = None
        while time.monotonic() < give_up:
            self.check_supervisor()
            try:
                answer = self.client(timeout_s=2).request("GET", "/ready", token=None)
                if answer.http == 200:
                    return
                last = answer.text
            except (OSError, http.client.HTTPException) as e:
                last = e
            time.sleep(0.005)
        raise ClusterError("the endpoint is not ready after %.0f s (last: %r)" % (deadline_s * self.ctx.slow, last))

    def are_all_up(self):
        """Every node up, one of them master: then what status says."""
        status = self.status()
        return status["master"] and len(status["nodes"]) == self.replica_count + 1 and all(
            n["state"] == "up" for n in status["nodes"]) and status

    def wait_all_up(self, deadline_s=20):
        return self.wait(self.are_all_up, deadline_s, "all nodes up")

    def wait(self, condition, deadline_s, what, interval_s=None):
        return wait_until(condition, deadline_s * self.ctx.slow, what, interval_s)

    def command(self, *words, timeout_s=60):
        """grizzly-supervisor WORDS --data-dir D; the finished process with its output."""
        return subprocess.run([self.supervisor_bin, words[0], "--data-dir", self.data_dir, *words[1:]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment(),
                              timeout=timeout_s * self.ctx.slow, check=False)

    def stop(self):
        """The orderly stop; every process is gone when it returns."""
        pids = self.pids()
        done = self.command("stop")
        assert done.returncode == 0, "stop: exit %d: %s%s" % (done.returncode, done.stdout, done.stderr)
        if self.supervisor is not None:
            self.supervisor.wait(timeout=20 * self.ctx.slow)
            assert self.supervisor.returncode == 0, "the supervisor ended with %s" % self.supervisor.returncode
            self.supervisor = None
        self.wait(lambda: not any(alive(p) for p in pids.values()), 10, "the nodes' processes to end")

    def kill_all(self):
        """kill -9 of everything at once, and of what the supervisor was just starting."""
        if not kill_tagged(self.ctx.directory):
            raise ClusterError("killed processes have not ended")
        if self.supervisor is not None:
            self.supervisor.wait()
            self.supervisor = None

    def close(self):
        try:
            self.kill_all()
        finally:
            self.ports.release()

    # -- looking

    def ask_supervisor(self, request):
        """What `grizzly-supervisor status --json` asks and prints, without a process for each time it is asked. One that
        hangs up is asked again for a while, as NNG's own REQ does: it does so where its listener must be replaced."""
        give_up = None
        while True:
            try:
                return self.ask_supervisor_once(request)
            except OSError as e:
                if give_up is None and isinstance(e, ConnectionResetError):
                    give_up = time.monotonic() + NOTICE_S
                if give_up is None or time.monotonic() >= give_up:
                    raise
                time.sleep(POLL_FIRST_S)

    def ask_supervisor_once(self, request):
        directory = os.open(os.path.join(self.data_dir, "run"), os.O_RDONLY | os.O_DIRECTORY)
        try:
            peer = sp.Peer("/proc/self/fd/%d/supervisor.ctl" % directory, sp.REQ, CALL_TIMEOUT_S)
        finally:
            os.close(directory)
        try:
            peer.send(sp.request(sp.message(sp.CLI_REQUEST, bytes(16), 0, sp.text(json.dumps(request)), "command")))
            head = sp.Head(peer.receive()[4:])
        finally:
            peer.close()
        if head.kind != sp.CLI_REPLY:
            raise ValueError("the supervisor's answer is a message of type %d" % head.kind)
        return json.loads(head.body[4:])

    def status(self):
        """The supervisor's word, once it has seen what has ended: it answers sooner than it hears of a kill."""
        give_up = time.monotonic() + NOTICE_S
        status = self.ask_supervisor({"command": "status"})
        while time.monotonic() < give_up and not all(alive(n["pid"]) for n in status["nodes"] if n["pid"]):
            time.sleep(POLL_FIRST_S)
            status = self.ask_supervisor({"command": "status"})
        # What was last seen, for scenarios that then freeze the supervisor and can ask it no more.
        self.last_pids = {n["id"]: n["pid"] for n in status["nodes"] if n["pid"]}
        self.last_master = status["master"]
        self.last_replicas = [n["id"] for n in status["nodes"] if n["id"] != status["master"]]
        return status

    def node(self, node_id):
        return next(n for n in self.status()["nodes"] if n["id"] == node_id)

    def master(self):
        """The id of the master; waits while there is none."""
        return self.wait(lambda: self.status()["master"], 20, "a master")

    def replicas(self):
        """Ids of the replicas."""
        status = self.status()
        return [n["id"] for n in status["nodes"] if n["id"] != status["master"]]

    def pids(self):
        return {n["id"]: n["pid"] for n in self.status()["nodes"] if n["pid"]}

    def log_bytes(self, node_id):
        """How large the files of a node's log are together; it may remove some meanwhile."""
        directory, total = os.path.join(self.data_dir, node_id, "wal"), 0
        for name in os.listdir(directory):
            try:
                total += os.path.getsize(os.path.join(directory, name))
            except FileNotFoundError:
                pass
        return total

    def pid(self, node_id):
        return self.wait(lambda: self.node(node_id)["pid"], 10, "%s to have a process" % node_id)

    def node_port(self, node_id):
        return self.port + int(node_id[len("node"):])

    @property
    def token(self):
        with open(os.path.join(self.data_dir, "token")) as f:
            return f.read().strip()

    def client(self, node_id=None, timeout_s=30.0, keep_alive=False):
        """A client of the endpoint, or of one node's own port."""
        port = self.port if node_id is None else self.node_port(node_id)
        try:
            token = self.token
        except FileNotFoundError:
            token = None
        return Client("127.0.0.1", port, token, timeout_s * self.ctx.slow, keep_alive, self.tls)

    def query(self, sql=None, params=None, statements=None, node=None, **more):
        """One query on a fresh connection; an Answer."""
        return self.client(node).query(sql, params, statements, **more)

    def ok(self, sql=None, params=None, statements=None, node=None, **more):
        return self.query(sql, params, statements, node, **more).must()

    def open_query(self, sql, node=None, **more):
        """A socket on which the query was sent, and nothing was read. The server closes it behind the answer."""
        body = json.dumps(dict({"sql": sql}, **more)).encode()
        port = self.port if node is None else self.node_port(node)
        s = socket.create_connection(("127.0.0.1", port), timeout=60 * self.ctx.slow)
        s.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (self.token.encode(), len(body), body))
        return s

    def node_status(self, node_id):
        return self.client(node_id, timeout_s=5).request("GET", "/status").json

    def wait_writable(self, deadline_s=20):
        """Until a write through the endpoint is acknowledged; the LSN it got."""
        def write():
            client = self.client(timeout_s=5)
            return client.query("CREATE TABLE IF NOT EXISTS harness_probe(x); DELETE FROM harness_probe").must()
        return self.wait(write, deadline_s, "a write to be acknowledged")

    def converged(self):
        """The common (lsn, checksum) when every node has applied and committed the same, else None."""
        nodes = [n["id"] for n in self.status()["nodes"]]
        seen = [self.node_status(n) for n in nodes]
        places = {(s["applied_lsn"], s["committed_lsn"], s["db_checksum"]) for s in seen}
        return places.pop() if len(places) == 1 and len(seen) == self.replica_count + 1 else None

    def wait_converged(self, deadline_s=20):
        return self.wait(self.converged, deadline_s, "equal LSNs and checksums on all nodes", interval_s=0.02)

    def check_integrity(self):
        """SQLite's own opinion of the database, asked on every node."""
        for node in [n["id"] for n in self.status()["nodes"]]:
            answer = self.query("PRAGMA integrity_check", node=node, consistency="stale")
            assert answer.rows == [["ok"]], "%s: %s" % (node, answer.text[:500])

    # -- hurting

    def signal(self, target, number):
        """target: a node id or "supervisor". Returns the pid hit."""
        pid = self.supervisor.pid if target == "supervisor" else self.pid(target)
        os.kill(pid, number)
        return pid

    def kill(self, target):
        pid = self.signal(target, signal.SIGKILL)
        if target == "supervisor":
            self.supervisor.wait()
            self.supervisor = None
        else:
            wait_until(lambda: not alive(pid), 10, "%s (%d) to end" % (target, pid), interval_s=0.001)
        return pid

    def freeze(self, target):
        """SIGSTOP to a node or the supervisor; the pid, for thaw()."""
        return self.freeze_pid(self.supervisor.pid if target == "supervisor" else self.pid(target))

    @staticmethod
    def freeze_pid(pid):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: process_state(pid) in ("T", None, "Z"), 10, "%d to stop" % pid, interval_s=0.001)
        return pid

    @staticmethod
    def thaw(pid):
        """SIGCONT for what freeze() stopped, if it still lives."""
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


class ByHand:
    """A node's program started without a supervisor, as somebody might who means well."""

    def __init__(self, c, program, node, *words):
        out = open(os.path.join(c.ctx.directory, "by-hand.out"), "ab")
        with out:
            self.process = subprocess.Popen(
                [os.path.join(c.ctx.build_dir, program), "--data-dir", c.data_dir, "--id", node, *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=c.environment())
        self.c, self.node = c, node

    def __enter__(self):
        self.c.wait(lambda: self.c.client(self.node).request("GET", "/health", token=None).ok, 10, "the lone node")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
