"""Disks and clocks that fail: faults.c compiled and preloaded into the processes of a cluster, and its switches."""
import errno
import fcntl
import os
import subprocess

from cluster import wait_until
from harness import build_preloaded

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faults.c")


class Faults:
    """Use prepare() before the cluster starts; then hang(), fail(), … switch a fault on, off() switches it off."""

    def __init__(self, ctx):
        self.ctx = ctx
        if ctx.sanitizer:
            ctx.skip("a preloaded library and a sanitizer's runtime both want to be first in a process")
        self.directory = os.path.join(ctx.directory, "faults")
        self.library = os.path.join(os.path.dirname(ctx.directory), "faults.so")  # one for all scenarios of a run
        self.locks = {}
        os.makedirs(self.directory)
        if not os.path.exists(self.library):
            build_preloaded(SOURCE, self.library)

    def prepare(self, cluster):
        """Has the cluster's processes, the supervisor's too, run with the library."""
        plain = cluster.environment

        def environment():
            e = plain()
            e["LD_PRELOAD"] = ":".join(filter(None, (self.library, e.get("LD_PRELOAD"))))
            e["GRIZZLY_FAULTS"] = self.directory
            return e
        cluster.environment = environment
        return cluster

    def switch(self, name, what, place):
        path = os.path.join(self.directory, name)
        with open(path + ".hits", "w"):
            pass
        f = open(path + ".new", "w")
        f.write("%s\n%s\n" % (what, place))
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        os.rename(path + ".new", path)
        self.off_lock(name)
        self.locks[name] = f

    def off_lock(self, name):
        f = self.locks.pop(name, None)
        if f is not None:
            f.close()

    def hang(self, name, place):
        self.switch(name, "hang", place)

    def fail(self, name, place, number=errno.EIO):
        self.switch(name, "errno %d" % number, place)

    def space(self, place, free_bytes):
        self.switch("space", "free %d" % free_bytes, place)

    def wall(self, seconds):
        self.switch("wall", "offset %d" % seconds, "-")

    def swallow_acks(self, port):
        self.switch("acks", "swallow", "%d" % port)

    def stick(self, thread, pid):
        self.switch("stick", "thread " + thread, "%d" % pid)

    def off(self, name):
        try:
            os.unlink(os.path.join(self.directory, name))
        except FileNotFoundError:
            pass
        self.off_lock(name)

    def hits(self, name):
        try:
            return os.path.getsize(os.path.join(self.directory, name + ".hits"))
        except FileNotFoundError:
            return 0

    def wait_hit(self, name, count=1):
        return wait_until(lambda: self.hits(name) >= count, 20, "the fault \"%s\" to be met" % name)
