"""Carries out a schedule on a real cluster and undoes it: one thread, which alone signals, cuts and starts processes.

Invariants: (1) what is frozen is thawed, what is killed is started again, whatever happens between. (2) A fault that
cannot be done at its moment (no master just then, no permission) is counted as skipped, with the reason.
"""
import collections
import ctypes
import heapq
import os
import random
import shutil
import signal
import socket
import threading
import time

from cluster import NOT_YET, alive, process_state, tagged_pids

SYS_PIDFD_GETFD = 438  # no wrapper in python's library


class Skipped(Exception):
    pass


def processes(directory):
    """{"node1": (pid, is it called master)} of the nodes that live, and "supervisor"."""
    found = {}
    for pid in tagged_pids(directory):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                words = f.read().decode("utf-8", "replace").split("\0")
            with open("/proc/%d/comm" % pid) as f:
                name = f.read().strip()
        except OSError:
            continue
        if "--id" in words:
            found[words[words.index("--id") + 1]] = (pid, name == "grizzly-master")
        elif "run" in words and os.path.basename(words[0]) == "grizzly-supervisor":
            found["supervisor"] = (pid, False)
    return found


def sockets(pid):
    """{inode: fd} of a process's sockets."""
    found = {}
    try:
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            except OSError:
                continue
            if target.startswith("socket:["):
                found[int(target[8:-1])] = int(fd)
    except OSError:
        pass
    return found


def tcp_inodes(wanted):
    """Inodes of established connections one of whose ports is wanted(port)."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(name):
            continue
        with open(name) as f:
            for line in f.readlines()[1:]:
                words = line.split()
                ports = [int(words[i].rsplit(":", 1)[1], 16) for i in (1, 2)]
                if words[3] == "01" and any(wanted(p) for p in ports):
                    found.add(int(words[9]))
    return found


def file_inodes(endings):
    """Inodes of connected sockets accepted at run/…, files of these endings (of other clusters, too)."""
    found = set()
    with open("/proc/net/unix") as f:
        for line in f.readlines()[1:]:
            words = line.split()
            if len(words) == 8 and "run/" in words[7] and words[7].endswith(endings) and words[5] == "03":
                found.add(int(words[6]))
    return found


def shut_down(pid, fd):
    """Ends a connection of another process from outside, as if the network had: both ways, without its doing."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    with socket.socket(fileno=copy) as s:
        s.shutdown(socket.SHUT_RDWR)


class Breaker(threading.Thread):
    def __init__(self, cluster, faults, seed, disk_is_ours):
        super().__init__(name="breaker", daemon=True)
        self.c, self.faults, self.seed = cluster, faults, seed
        self.disk_is_ours = disk_is_ours      # the data directory is a small file system of its own
        self.undo = []                        # heap of (when, number, function)
        self.done, self.skipped = collections.Counter(), collections.Counter()
        self.troubles = []                    # what must not happen: a supervisor that ends by itself, an exception
        self.log = []
        self.disk_full = 0
        self.disk_was_full = 0.0
        self.supervisor_held = 0              # undo actions that will start it
        self.number = 0
        self.dice = random.Random("faults %s" % seed)

    # -- the thread

    def run(self):
        started = time.monotonic()
        try:
            for fault in self.faults:
                self.wait_until(started + fault.at)
                self.carry_out(fault, time.monotonic() - started)
            self.wait_until(None)
        except Exception as e:  # reported as a failure of the run
            self.troubles.append("the faults' thread: %r" % e)
            raise
        finally:
            self.heal()

    def wait_until(self, when):
        """Does what is due until then; None: until nothing is left to undo."""
        while True:
            now = time.monotonic()
            if when is None and not self.undo or when is not None and now >= when:
                return
            if self.undo and self.undo[0][0] <= now:
                heapq.heappop(self.undo)[2]()
                continue
            self.watch_supervisor()
            next_time = min([t for t in (when, self.undo[0][0] if self.undo else None) if t is not None])
            time.sleep(max(0.0, min(0.05, next_time - now)))

    def later(self, seconds, function):
        self.number += 1
        heapq.heappush(self.undo, (time.monotonic() + seconds, self.number, function))

    def heal(self):
        while self.undo:
            heapq.heappop(self.undo)[2]()
        if self.c.supervisor is None:
            self.c.start_supervisor()

    def carry_out(self, fault, now):
        name = "%s %s" % (fault.kind, fault.target)
        try:
            detail = getattr(self, fault.kind)(fault)
            self.done[name] += 1
        except Skipped as e:
            detail = "skipped: %s" % e
            self.skipped[name] += 1
        self.log.append("%8.3f %s %s: %s" % (now, name, "%.3f s" % fault.seconds if fault.seconds else "", detail))

    def watch_supervisor(self):
        s = self.c.supervisor
        if s is None or s.poll() is None:
            return
        code = s.returncode
        self.c.supervisor = None
        if self.disk_full or time.monotonic() - self.disk_was_full < 5 * self.c.ctx.slow:
            self.log.append("         the supervisor ended with %s on a full disk" % code)
            self.supervisor_held += 1
            self.later(0.5, self.start_supervisor)
            return
        self.troubles.append("the supervisor ended by itself with %s" % code)
        self.supervisor_held += 1
        self.later(0.5, self.start_supervisor)

    # -- finding

    def find(self, target):
        """[(name, pid)] for "master", "replica" (one, drawn), "replicas", "nodes", "supervisor"."""
        here = processes(self.c.ctx.directory)
        nodes = sorted(n for n in here if n != "supervisor")
        if target == "supervisor":
            names = [n for n in here if n == "supervisor"]
        elif target == "nodes":
            names = nodes
        elif target == "master":
            names = [n for n in nodes if here[n][1]][:1]
        else:
            names = [n for n in nodes if not here[n][1]]
            draw = self.dice.random()
            if target == "replica" and names:
                names = [names[int(draw * len(names))]]
        if not names:
            raise Skipped("no %s at the moment" % target)
        return [(n, here[n][0]) for n in names]

    # -- faults

    def kill(self, fault):
        victims = self.find(fault.target)
        for _, pid in victims:
            self.send(pid, signal.SIGKILL)
        if fault.target == "supervisor":
            if self.c.supervisor is not None:
                self.c.supervisor.wait()
                self.c.supervisor = None
            self.supervisor_held += 1
            self.later(fault.seconds, self.start_supervisor)
        return victims

    def power(self, fault):
        pids = tagged_pids(self.c.ctx.directory)
        for pid in pids:
            self.send(pid, signal.SIGKILL)
        if self.c.supervisor is not None:
            self.c.supervisor.wait()
            self.c.supervisor = None
        give_up = time.monotonic() + 20
        while any(alive(p) for p in pids) and time.monotonic() < give_up:
            time.sleep(0.002)
        self.supervisor_held += 1
        self.later(fault.seconds, self.start_supervisor)
        return "%d processes" % len(pids)

    def start_supervisor(self):
        self.supervisor_held -= 1
        if self.supervisor_held == 0 and self.c.supervisor is None:
            self.c.start_supervisor()

    @staticmethod
    def send(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def stop(self, fault):
        victims = self.find(fault.target)
        for _, pid in victims:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self.send(pid, signal.SIGSTOP)
            self.later(fault.seconds, lambda pidfd=pidfd: self.thaw(pidfd))
        return victims

    @staticmethod
    def thaw(pidfd):
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        except ProcessLookupError:
            pass
        os.close(pidfd)

    def cut(self, fault):
        """Connections end; again a few times within the fault's seconds, for they come back at once."""
        count = self.cut_once(fault.target)
        times = self.dice.randint(0, 4) if fault.seconds else 0
        for i in range(times):
            self.later(fault.seconds * (i + 1) / times, lambda: self.cut_again(fault.target))
        return "%d connections, %d times again" % (count, times)

    def cut_again(self, target):
        try:
            self.cut_once(target)
        except Skipped:
            pass

    def cut_once(self, target):
        base = self.c.port
        if target == "links":
            inodes = tcp_inodes(lambda p: base + 100 <= p < base + 300) | file_inodes((".replication", ".acks"))
        elif target == "clients":
            inodes = tcp_inodes(lambda p: base <= p < base + 100)
        else:
            inodes = file_inodes(".ctl")
        count = 0
        for pid, _ in processes(self.c.ctx.directory).values():
            for inode, fd in sockets(pid).items():
                if inode in inodes and self.dice.random() < 0.7:
                    try:
                        shut_down(pid, fd)
                        count += 1
                    except PermissionError as e:
                        raise Skipped("not permitted: %s" % e)
                    except OSError:
                        pass  # it was closed in between
        return count

    def switchover(self, fault):
        (name, _), = self.find("replica")
        thread = threading.Thread(target=self.command_switchover, args=(name,), daemon=True)
        thread.start()
        return "to %s" % name

    def command_switchover(self, name):
        """Its outcome is open: the target may die on the way. The history tells whether it did harm."""
        done = self.c.command("switchover", "--to", name, timeout_s=60)
        self.log.append("         switchover to %s: exit %d %s" % (name, done.returncode, done.stderr.strip()[:120]))

    def wipe(self, fault):
        """Only while all is well: a second loss before the first is made good would be a lost majority."""
        if self.c.supervisor is None or process_state(self.c.supervisor.pid) == "T":
            raise Skipped("no supervisor")
        try:
            status = self.c.status()
        except NOT_YET:
            raise Skipped("no status")
        if any(n["state"] != "up" for n in status["nodes"]):
            raise Skipped("not all nodes are up")
        (name, pid), = self.find("replica")
        place = os.path.join(self.c.data_dir, name)
        self.send(pid, signal.SIGKILL)
        os.rename(place, place + ".gone")
        shutil.rmtree(place + ".gone")
        return name

    def disk(self, fault):
        if not self.disk_is_ours:
            raise Skipped("no file system of its own (needs root to mount one)")
        self.disk_full += 1
        self.fill()
        self.later(fault.seconds, self.empty)
        return "full"

    def fill(self):
        fd = os.open(os.path.join(self.c.data_dir, "ballast"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while os.write(fd, bytes(size)):
                    pass
            except OSError:  # no room for a piece of this size
                pass
        os.close(fd)

    def empty(self):
        self.disk_full -= 1
        self.disk_was_full = time.monotonic()
        if self.disk_full == 0:
            os.unlink(os.path.join(self.c.data_dir, "ballast"))
