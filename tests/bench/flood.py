#!/usr/bin/env python3
"""What a crowd that is idle or slow costs everybody else. Used by bench.py, which runs this file as the crowd, too.

Normal clients read and write on kept connections, alone first, then with the crowd there: so many connections that say
nothing, and so many that send a head or a body byte by byte or read a large answer a little at a time. Whoever of the
crowd is cut off comes back at once. The crowd comes from loopback addresses of its own.

As a program: flood.py ADDRESS IDLE SLOW TOKEN_FILE; prints a line of JSON when all are there, ends when its standard input
does, with a second line.
"""

import json
import os
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time

from cluster import BenchError, Cluster, memory_kib

IDLE = 10000
SLOW = 200
SPARE = 2000  # descriptors that a node and the crowd need beside those of the crowd
DRIP_S = 0.25
LARGE = json.dumps({"sql": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000000) "
                           "SELECT n, 'what nobody reads' FROM c", "timeout_ms": 60000})


class Crowd:
    def __init__(self, address, idle, slow, token):
        host, port = address.rsplit(":", 1)
        self.address = (host, int(port))
        self.selector = selectors.DefaultSelector()
        self.idle, self.slow = set(), {}
        self.cut = self.refused = self.sequence = 0
        head = ("POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (
            token, len(LARGE))).encode()
        self.reading = head + LARGE.encode()
        self.bodies = (head + LARGE.encode()[:-1], b"GET /status HTTP/1.1\r\n" + b"X-Drip: y\r\n" * 1000)
        for _ in range(idle):
            self.add_idle()
        for kind in range(slow):
            self.add_slow(kind % 4)

    def connect(self):
        self.sequence += 1
        s = socket.socket()
        s.bind(("127.0.1.%d" % (1 + self.sequence % 8), 0))
        s.settimeout(20)
        s.connect(self.address)
        s.setblocking(False)
        return s

    def add_idle(self):
        s = self.connect()
        self.idle.add(s)
        self.selector.register(s, selectors.EVENT_READ, None)

    def add_slow(self, kind):
        """0: reads slowly; 1: a slow body; 2, 3: a slow head."""
        s = self.connect()
        if kind == 0:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.send(self.reading)
        elif kind == 1:
            s.send(self.bodies[0][:-60])
        self.slow[s] = [kind, 0]
        if kind != 0:
            self.selector.register(s, selectors.EVENT_READ, kind)

    def replace(self, s, kind):
        self.cut += 1
        if kind != 0:
            self.selector.unregister(s)
        s.close()
        try:
            if kind is None:
                self.idle.remove(s)
                self.add_idle()
            else:
                del self.slow[s]
                self.add_slow(kind)
        except OSError:
            self.refused += 1

    def drip(self):
        for s, state in list(self.slow.items()):
            kind, sent = state
            try:
                if kind == 0:
                    if s.recv(256) == b"":
                        raise ConnectionResetError
                else:
                    text = self.bodies[0][-60:] if kind == 1 else self.bodies[1]
                    s.send(text[sent:sent + 1])
                    state[1] = sent + 1 if sent + 2 < len(text) else sent
            except BlockingIOError:
                pass
            except OSError:
                self.replace(s, kind)

    def run(self, stdin):
        self.selector.register(stdin, selectors.EVENT_READ, "stdin")
        due = time.monotonic()
        while True:
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                if key.data == "stdin":
                    return
                try:
                    gone = key.fileobj.recv(4096) == b""
                except BlockingIOError:
                    gone = False
                except OSError:
                    gone = True
                if gone:
                    self.replace(key.fileobj, key.data)
            if time.monotonic() >= due:
                self.drip()
                due = time.monotonic() + DRIP_S


def crowd(address, idle, slow, token_file):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open(token_file, encoding="utf-8") as f:
        token = f.read().strip()
    c = Crowd(address, int(idle), int(slow), token)
    print(json.dumps({"idle": len(c.idle), "slow": len(c.slow)}), flush=True)
    c.run(sys.stdin)
    print(json.dumps({"idle": len(c.idle), "slow": len(c.slow), "cut": c.cut, "refused": c.refused}), flush=True)


def measure(bench, cluster, bodies):
    out = {}
    for name, body in bodies.items():
        runs = [bench.load(cluster.endpoint, body, 16, token_file=cluster.token_file)
                for _ in range(1 if bench.args.quick else 5)]
        out[name] = {"p50_us": statistics.median(r["p50_us"] for r in runs),
                     "p99_us": statistics.median(r["p99_us"] for r in runs),
                     "rate": statistics.median(r["rate"] for r in runs)}
    return out


def metrics(cluster):
    client = cluster.client()
    text = client.request("GET", "/metrics")[1].decode()
    client.close()
    return {line.split("{")[0]: float(line.split()[-1]) for line in text.splitlines()
            if line.startswith("grizzly_http_connections")}


def flood(bench, bodies):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    idle = IDLE if hard == resource.RLIM_INFINITY else max(100, min(IDLE, hard - SPARE))
    settings = {"http": {"connections_max": idle + 1000, "address_connections_max": idle}}
    cluster = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "flood"), bench.args.http_port + 20, 2, settings)
    cluster.start()
    process = None
    try:
        bench.fill_tables(cluster)
        alone = measure(bench, cluster, bodies)
        pid = cluster.pids()[cluster.master()["id"]]
        memory = memory_kib(pid)[0]
        process = subprocess.Popen([sys.executable, os.path.abspath(__file__), cluster.endpoint, str(idle), str(SLOW),
                                    cluster.token_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        there = json.loads(process.stdout.readline() or b"{}")
        if there != {"idle": idle, "slow": SLOW}:
            raise BenchError("the crowd did not get in: %s of %d and %d" % (there, idle, SLOW))
        crowded = measure(bench, cluster, bodies)
        counts = metrics(cluster)
        memory_crowded = memory_kib(pid)[0]
        left = json.loads(process.communicate(b"", 60)[0] or b"{}")
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        cluster.stop()
    bench.heading("p99 beside %d idle and %d slow connections" % (idle, SLOW), "alone")
    if idle < IDLE:
        print("    %d idle ones, not %d: the limit of open files is %d (ulimit -Hn)" % (idle, IDLE, hard))
    for name in bodies:
        ours, theirs = crowded[name], alone[name]
        bench.line("%s, 16 connections, p99" % name, bench.ms(ours["p99_us"]) + " ms", bench.ms(theirs["p99_us"]) + " ms",
                   "%.2f" % (ours["p99_us"] / theirs["p99_us"]), bench.ms(ours["p50_us"]), bench.ms(ours["p99_us"]),
                   "%.0f/s, alone %.0f/s" % (ours["rate"], theirs["rate"]))
    print("    connections %d, of the crowd cut off and back %d; memory of the master %.1f MB, before %.1f MB" % (
        counts["grizzly_http_connections"], left["cut"], memory_crowded / 1024, memory / 1024))
    bench.results["flood"] = {"idle": idle, "slow": SLOW, "alone": alone, "crowded": crowded, "crowd": left,
                              "metrics": counts, "memory_kib": [memory, memory_crowded]}


if __name__ == "__main__":
    crowd(*sys.argv[1:])
