#!/usr/bin/env python3
"""Real processes under attack: clients that remember, faults that a seed decides, and a judgement of what was told.

    chaos.py --build-dir B [--seed N] [--seconds S] [--workload register|append|bank|insert|all] [--runs R] [--keep DIR]
             [--links FORM]
    chaos.py --check HISTORY       judges a register's history once more

A run: a cluster of three nodes, its data on a small file system of its own where mounting is permitted; clients that
record every request and answer; the faults of schedule.py, printed before they are done. Then everything is healed, must
come up and take writes again, and the history is judged: registers must be linearizable (linear.py), lists, bank and
single rows must hold what was acknowledged once and in order (checks.py), LSNs must never go back, and all nodes must
end with the same checksum and pass SQLite's integrity check. The seed decides faults and requests; the processes'
own timing is not in its hand. SIGKILL of everything stands for a power cut as far as processes go: the kernel keeps what
was written and not synced, so what fdatasync is worth is tests/sim's and the log's own tests' to show.

Ends with "N passed, N failed" (runs). Exit codes: 0 no violation, 1 violations, 2 usage.
"""
import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))
sys.path.insert(0, HERE)

import certs  # noqa: E402
import checks  # noqa: E402
import history  # noqa: E402
import schedule  # noqa: E402
import workloads  # noqa: E402
from cluster import ClusterError, remove_directory  # noqa: E402
from faults import Breaker  # noqa: E402
from harness import Context, build_sanitizer  # noqa: E402

SETTINGS = {"commit_timeout_ms": 2000,
            "store": {"segment_size_bytes": 1 << 20, "checkpoint_bytes": 4 << 20, "keep_bytes": 8 << 20}}
DISK_BYTES = 256 << 20
LINKS = ("ipc", "tcp", "tls")  # what the nodes' records cross


class Run:
    """One run: what the workers share."""

    def __init__(self, options, seed, directory):
        self.options, self.seed, self.directory = options, seed, directory
        self.ctx = Context(options.build_dir, os.path.dirname(os.path.dirname(HERE)), directory,
                           build_sanitizer(options.build_dir))
        self.slow = self.ctx.slow
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.processes = 0
        self.tallies = collections.Counter()
        self.errors = collections.Counter()
        self.broken = []
        self.history_path = os.path.join(directory, "history.jsonl")

    def new_process(self):
        with self.lock:
            self.processes += 1
            return self.processes

    def tally(self, f, outcome, err):
        with self.lock:
            self.tallies[f, outcome] += 1
            if err:
                self.errors[err] += 1

    # -- one after the other

    def execute(self):
        """Runs everything; the list of violations."""
        faults = schedule.make(self.seed, self.options.seconds, self.slow)
        links = self.options.links or LINKS[self.seed % len(LINKS)]
        print("seed %s: %d faults in %g s, links over %s" % (self.seed, len(faults), self.options.seconds, links))
        if self.options.verbose:
            print("\n".join(schedule.describe(faults)))
        sys.stdout.flush()
        settings = dict(SETTINGS, durability=self.options.durability,
                        replication={"local": "ipc" if links == "ipc" else "tcp"})
        if links == "tls":
            settings["tls"] = certs.FILES
        self.cluster = self.ctx.cluster(replicas=2, settings=settings, data_dir=self.mount())
        if links == "tls":
            certs.make_certs(self.ctx, certs.certs_of(self.cluster))
            self.cluster.tls = certs.trusting(certs.certs_of(self.cluster))
        try:
            return self.attack(faults)
        finally:
            self.stopping.set()
            self.cluster.close()

    def mount(self):
        """A small file system for the data, so that a full disk hurts nobody else."""
        place = os.path.join(self.directory, "disk")
        os.makedirs(place)
        self.disk_is_ours = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=%d,mode=0700" % DISK_BYTES, "grizzly-chaos", place],
            capture_output=True, check=False).returncode == 0
        return place

    def attack(self, faults):
        c = self.cluster
        c.start()
        self.nodes = ["node%d" % (i + 1) for i in range(c.replica_count + 1)]
        chosen = [workloads.BY_NAME[n](self.seed) for n in self.options.workloads]
        for w in chosen:
            c.ok("; ".join(w.tables()))
        self.history = history.History(self.history_path)
        # All kinds at once share the processors of a few clients of each.
        workers, number = [], 0
        for w in chosen:
            for _ in range(w.workers if len(chosen) == 1 else max(2, w.workers // 2)):
                workers.append(workloads.Worker(self, number, w))
                number += 1
        breaker = Breaker(c, faults, self.seed, self.disk_is_ours)
        for thread in [*workers, breaker]:
            thread.start()
        breaker.join(self.options.seconds * 4 + 120 * self.slow)
        bad = list(breaker.troubles)
        if breaker.is_alive():
            bad.append("the faults' thread does not end")
        bad += self.recover(workers)
        self.stopping.set()
        for w in workers:
            w.join(40 * self.slow)
            if w.is_alive():
                bad.append("%s hangs in a request" % w.name)
        bad += self.broken
        for w in chosen:
            w.final(workloads.Worker(self, number, w))
            number += 1
        self.history.close()
        if not bad:
            bad += self.finish(chosen)
        self.report(breaker, bad)
        return bad

    def recover(self, workers):
        """With all faults undone the cluster serves again, and every client with it."""
        c = self.cluster
        try:
            c.wait_writable(60)
            before = [w.oks for w in workers]
            c.wait(lambda: all(w.oks > n or not w.is_alive() for w, n in zip(workers, before)), 40,
                   "every client to be served again")
            c.wait_all_up(60)
        except ClusterError as e:
            return ["does not recover: %s" % e]
        return []

    def finish(self, chosen):
        c = self.cluster
        bad = []
        try:
            c.wait_converged(60)
            c.check_integrity()
            self.ctx.check_logs()
        except (AssertionError, OSError) as e:
            bad.append("at the end: %s" % e)
        self.failovers = c.status()["failovers"]

        def query(sql):
            return c.ok(sql, timeout_ms=30000)["rows"]
        ops = history.load(self.history_path)
        self.operations = len(ops)
        bad += checks.check_errors(ops) + checks.check_lsns(ops)
        for w in chosen:
            started = time.monotonic()
            bad += w.check(ops, query)
            self.tallies["check", w.name] = round(time.monotonic() - started, 2)
        return bad

    def report(self, breaker, bad):
        if self.options.verbose or bad:
            print("\n".join(breaker.log))
            with open(os.path.join(self.directory, "faults.out"), "w") as f:
                f.write("\n".join(breaker.log) + "\n")
        by_outcome = collections.Counter()
        for (f, outcome), n in self.tallies.items():
            if f != "check":
                by_outcome[outcome] += n
        print("\toperations: %s (%s)" % (sum(by_outcome.values()), ", ".join("%s %d" % i for i in sorted(
            by_outcome.items()))))
        print("\tfaults: %s" % ", ".join("%s %d" % i for i in sorted(breaker.done.items())))
        if breaker.skipped:
            print("\tskipped: %s" % ", ".join("%s %d" % i for i in sorted(breaker.skipped.items())))
        print("\terrors clients saw: %s" % ", ".join("%s %d" % i for i in sorted(self.errors.items())))
        print("\tfailovers: %s" % getattr(self, "failovers", "?"))
        self.summary = {"operations": by_outcome, "faults": breaker.done, "skipped": breaker.skipped,
                        "failovers": getattr(self, "failovers", 0) or 0}


def keep(run, options, bad):
    """Leaves what is needed to find out: history, logs, the violations."""
    place = os.path.join(options.keep, "seed-%s" % run.seed)
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    for path in [run.history_path, *run.ctx.logs()]:
        if os.path.exists(path):
            shutil.copy(path, place)
    with open(os.path.join(place, "violations.txt"), "w") as f:
        f.write("\n\n".join(bad) + "\n")
    return place


def run_seed(options, seed, totals):
    directory = tempfile.mkdtemp(prefix="gz-chaos-")
    run = Run(options, seed, directory)
    started = time.monotonic()
    try:
        bad = run.execute()
        for name in ("operations", "faults", "skipped"):
            totals[name].update(run.summary[name])
        totals["failovers"] += run.summary["failovers"]
    except (AssertionError, OSError) as e:
        bad = ["the run broke off: %r" % e]
    totals["seconds"] += time.monotonic() - started
    try:
        if bad:
            place = keep(run, options, bad)
            print("FAIL seed %s: %d violations, kept in %s" % (seed, len(bad), place))
            for text in bad[:5]:
                print("\t" + text[:1500])
        else:
            print("ok   seed %s (%.1f s)" % (seed, time.monotonic() - started))
    finally:
        remove_directory(directory)
    sys.stdout.flush()
    return not bad


def check_again(path):
    ops = [op for op in history.load(path)]
    bad = checks.check_errors(ops) + checks.check_lsns(ops) + checks.check_register(
        [op for op in ops if op.f in ("read", "write", "cas")])
    print("\n".join(bad) or "%d operations, no violation" % len(ops))
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build-dir", default=os.environ.get("GRIZZLY_BUILD_DIR", "build"))
    parser.add_argument("--seed", type=int, help="the first seed (drawn and printed when left out)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of attack in each run (20)")
    parser.add_argument("--workload", choices=[*workloads.BY_NAME, "all"], default="all")
    parser.add_argument("--durability", choices=("quorum", "all", "async"), default="quorum",
                        help="async promises less: a few runs must find lost writes, which shows that losses are found")
    parser.add_argument("--links", choices=LINKS, help="what the nodes' records cross (by the seed); tls: clients, too")
    parser.add_argument("--runs", type=int, default=1, help="runs, each with the next seed (1)")
    parser.add_argument("--keep", metavar="DIR", help="where failed runs leave their files (BUILD-DIR/chaos-failures)")
    parser.add_argument("--verbose", action="store_true", help="print the schedule and what was done")
    parser.add_argument("--check", metavar="HISTORY", help="judge a recorded history of registers, run nothing")
    options = parser.parse_args()
    if options.check:
        return check_again(options.check)
    options.build_dir = os.path.abspath(options.build_dir)
    options.keep = os.path.abspath(options.keep or os.path.join(options.build_dir, "chaos-failures"))
    options.workloads = list(workloads.BY_NAME) if options.workload == "all" else [options.workload]
    if not os.access(os.path.join(options.build_dir, "grizzly-supervisor"), os.X_OK):
        print("no grizzly-supervisor in %s: build first, or say --build-dir" % options.build_dir, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 31)
    totals = collections.defaultdict(collections.Counter, failovers=0, seconds=0.0)
    good = 0
    for i in range(options.runs):
        good += run_seed(options, first + i, totals)
    if options.runs > 1:
        print("in all: %.0f s, operations %s, faults %s, skipped %s, failovers %d" % (
            totals["seconds"], dict(totals["operations"]), dict(sorted(totals["faults"].items())),
            dict(totals["skipped"]), totals["failovers"]))
    print("%d passed, %d failed" % (good, options.runs - good))
    return 0 if good == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())
