"""Scratch servers of PostgreSQL 15, a yardstick of the same run. Used by the sections of bench.py that take --postgres.

They run below a directory of their own, as postgres where the benchmark is root, with the settings that the package's
servers have but for what a section asks for.
"""

import os
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

from cluster import BenchError

BIN = "/usr/lib/postgresql/15/bin"


class Postgres:
    """Use with `with`; no server runs before start() or start_standby()."""

    def __init__(self):
        if not os.access(os.path.join(BIN, "initdb"), os.X_OK):
            raise BenchError("PostgreSQL 15 is not installed: scripts/bench.sh --postgres does that")
        self.user = {}
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            self.user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.directory = None
        self.servers = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="grizzly-bench-pg-")
        try:
            if self.user:
                os.chown(self.directory, self.user["user"], self.user["group"])
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for server in self.servers:
            server.send_signal(signal.SIGINT)  # fast shutdown
        for server in self.servers:
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(30)
        self.servers = []
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command, stdin=None):
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=600,
                              cwd=self.directory, **self.user)
        if done.returncode != 0:
            raise BenchError("%s: exit %d: %s" % (command[0], done.returncode, done.stderr[-500:]))
        return done.stdout

    def start(self, port, settings=()):
        """settings: lines of postgresql.conf."""
        data = os.path.join(self.directory, str(port))
        self.run(BIN + "/initdb", "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C", "--no-sync")
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="utf-8") as conf:
            conf.writelines(line + "\n" for line in settings)
        self.launch(port, data)

    def start_standby(self, port, primary_port, name):
        """A streaming copy of the server at primary_port, which knows it by name."""
        data = os.path.join(self.directory, str(port))
        self.run(BIN + "/pg_basebackup", "-h", "127.0.0.1", "-p", str(primary_port), "-U", "bench", "-D", data, "-X",
                 "stream", "-d", "application_name=" + name, "-R", "-c", "fast")
        self.launch(port, data)

    def launch(self, port, data):
        with open(os.path.join(self.directory, "log-%d" % port), "wb") as log:
            self.servers.append(subprocess.Popen(
                [BIN + "/postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", self.directory],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.directory,
                **self.user))
        deadline = time.monotonic() + 60
        while True:
            try:
                self.psql(port, "SELECT 1;")
                return
            except BenchError:
                if self.servers[-1].poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def psql(self, port, script):
        return self.run(BIN + "/psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port), "-U",
                        "bench", "-d", "postgres", "-o", "/dev/null", stdin=script)

    def median(self, port, sql, runs):
        out = self.psql(port, "\\timing on\n" + (sql + ";\n") * (runs + 1))
        took = [float(ms) for ms in re.findall(r"^Time: ([0-9.]+) ms", out, re.MULTILINE)]
        if len(took) != runs + 1:
            raise BenchError("psql timed %d queries instead of %d" % (len(took), runs + 1))
        return statistics.median(took[1:])

    def replicate(self, first_port):
        """A primary at first_port and two standbys behind it, one of which has to have a commit on its disk, too."""
        self.start(first_port)
        for i in (1, 2):
            self.start_standby(first_port + i, first_port, "s%d" % i)
        self.psql(first_port, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)';")
        self.psql(first_port, "SELECT pg_reload_conf();")

    def pgbench(self, port, script, clients, seconds):
        """{"rate": transactions a second, "p50_us", "p99_us"}; each client sends what the file script has, prepared."""
        prefix = os.path.join(self.directory, "pgbench")
        self.run(BIN + "/pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-n", "-M", "prepared", "-f", script,
                 "-c", str(clients), "-T", str(seconds), "-l", "--log-prefix", prefix, "postgres")
        took = []
        for name in os.listdir(self.directory):
            if name.startswith("pgbench."):
                path = os.path.join(self.directory, name)
                with open(path, encoding="utf-8") as log:
                    took.extend(int(line.split()[2]) for line in log)
                os.unlink(path)
        took.sort()
        if not took:
            raise BenchError("pgbench did nothing")
        return {"rate": len(took) / seconds, "p50_us": took[len(took) // 2], "p99_us": took[len(took) * 99 // 100]}
