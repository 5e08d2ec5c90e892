"""The record of what clients asked and were told: written to a file as it happens, read back for the checks.

One JSON line per event. "invoke" has the operation (p: process, f: what, k: key, v: value, mode, via), the later "ok",
"fail" or "info" of the same n its outcome. fail: the operation certainly had no effect. info: nobody knows; so is an
operation without an outcome line. A process whose operation ended in info never asks again: its client goes on under a
new number. t is CLOCK_MONOTONIC in seconds, taken before the request is sent and after its answer has been read.
"""
import json
import threading
import time

UNKNOWN_END = float("inf")


class History:
    def __init__(self, path):
        self.lock = threading.Lock()
        self.file = open(path, "w", buffering=1 << 16)
        self.count = 0

    def invoke(self, process, **what):
        with self.lock:
            n = self.count
            self.count += 1
        self.write(dict(what, n=n, e="invoke", p=process, t=time.monotonic()))
        return n

    def complete(self, n, outcome, **what):
        self.write(dict(what, n=n, e=outcome, t=time.monotonic()))

    def write(self, event):
        line = json.dumps(event, separators=(",", ":")) + "\n"
        with self.lock:
            self.file.write(line)

    def close(self):
        with self.lock:
            self.file.close()


class Op:
    """One operation with its outcome. result: the outcome line."""

    def __init__(self, event):
        self.n, self.process, self.start = event["n"], event["p"], event["t"]
        self.f, self.key, self.value = event["f"], event.get("k"), event.get("v")
        self.mode, self.via, self.min_lsn = event.get("mode"), event.get("via"), event.get("min_lsn", 0)
        self.outcome, self.end, self.result = "info", UNKNOWN_END, {}

    def completed(self, event):
        self.outcome, self.result = event["e"], event
        if self.outcome != "info":
            self.end = event["t"]

    @property
    def lsn(self):
        return self.result.get("lsn")

    @property
    def seen(self):
        return self.result.get("v")

    def __repr__(self):
        return "#%d p%d %s k=%r v=%r mode=%s via=%s [%.6f, %.6f] %s %s" % (
            self.n, self.process, self.f, self.key, self.value, self.mode, self.via, self.start, self.end,
            self.outcome, {k: v for k, v in self.result.items() if k not in ("n", "e", "t")})


def load(path):
    """[Op] in order of invocation."""
    ops = {}
    with open(path) as f:
        for line in f:
            event = json.loads(line)
            if event["e"] == "invoke":
                ops[event["n"]] = Op(event)
            else:
                ops[event["n"]].completed(event)
    return sorted(ops.values(), key=lambda op: op.start)
