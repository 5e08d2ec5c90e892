"""Concurrent clients that remember what they were told, and the check of what the database then holds.

Each insert has a key of its own. `acked` were answered ok: exactly one row each must be there for ever after.
`unknown` failed in any way (an error answer, a broken connection): at most one row each. The table has no unique
constraint, so that a write applied twice shows. No key is ever tried again.
"""
import collections
import http.client
import threading
import time

TABLE = "CREATE TABLE IF NOT EXISTS load(k TEXT NOT NULL, writer INTEGER, n INTEGER)"


class Load:
    """writers threads insert; each reads its last acknowledged row back through the endpoint now and then."""

    def __init__(self, cluster, writers=4, keep_alive=True, name="load", pause_s=0.0, read_every=8):
        self.cluster = cluster
        self.name = name
        self.keep_alive = keep_alive
        self.pause_s = pause_s
        self.read_every = read_every
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.acked = {}           # key -> lsn
        self.unknown = set()
        self.errors = collections.Counter()  # what failed requests said
        self.refused = 0          # connections that were refused: never allowed while anybody serves
        self.wrong = []           # violations seen while running
        self.ack_times = []
        cluster.wait(lambda: cluster.ok(TABLE), 20, "the load's table")
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(writers)]
        for t in self.threads:
            t.start()

    def run(self, writer):
        client = self.cluster.client(timeout_s=20, keep_alive=self.keep_alive)
        last_lsn, n = 0, 0
        while not self.stopping.is_set():
            n += 1
            key = "%s-%d-%d" % (self.name, writer, n)
            answer = self.attempt(client, "INSERT INTO load VALUES (?, ?, ?)", [key, writer, n])
            if answer is None or not answer.ok:
                with self.lock:
                    self.unknown.add(key)
                time.sleep(0.002)
                continue
            with self.lock:
                self.acked[key] = answer.json["lsn"]
                self.ack_times.append(time.monotonic())
                if answer.json["lsn"] < last_lsn:
                    self.wrong.append("%s acknowledged at lsn %d after %d" % (key, answer.json["lsn"], last_lsn))
            last_lsn = answer.json["lsn"]
            if self.read_every and n % self.read_every == 0:
                self.read_back(client, key)
            if self.pause_s:
                time.sleep(self.pause_s)
        client.close()

    def read_back(self, client, key):
        answer = self.attempt(client, "SELECT count(*) FROM load WHERE k = ?", [key])
        if answer is not None and answer.ok and answer.json["rows"] != [[1]]:
            with self.lock:
                self.wrong.append("%s was acknowledged, a read then found %r" % (key, answer.json["rows"]))

    def attempt(self, client, sql, params):
        try:
            answer = client.query(sql, params)
        except ConnectionRefusedError:
            with self.lock:
                self.refused += 1
                self.errors["connection refused"] += 1
            return None
        except (OSError, http.client.HTTPException) as e:
            with self.lock:
                self.errors[type(e).__name__] += 1
            return None
        if not answer.ok:
            with self.lock:
                self.errors["%s %s" % (answer.http, answer.code)] += 1
                if answer.http == 200:
                    self.wrong.append("an error with HTTP 200: %s" % answer.text[:200])
        return answer

    def count(self):
        with self.lock:
            return len(self.acked)

    def wait_more(self, more, deadline_s=20):
        """Until `more` further inserts have been acknowledged."""
        goal = self.count() + more
        self.cluster.wait(lambda: self.count() >= goal, deadline_s, "%d more acknowledged inserts (errors: %s)" % (
            more, dict(self.errors)))

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(60 * self.cluster.ctx.slow)
            assert not t.is_alive(), "a client hangs in a request"

    def longest_gap_ms(self):
        """The longest time without any acknowledgement."""
        with self.lock:
            times = sorted(self.ack_times)
        return max((b - a for a, b in zip(times, times[1:])), default=0.0) * 1000

    def verify(self, node=None, **more):
        """Compares memory and database; call after stop()."""
        assert not self.wrong, "%d violations, e.g. %s" % (len(self.wrong), self.wrong[:3])
        rows = self.cluster.wait(
            lambda: self.cluster.ok("SELECT k, count(*) FROM load WHERE k GLOB ? GROUP BY k", [self.name + "-*"],
                                    node=node, **more), 20, "the load's rows")["rows"]
        found = dict(map(tuple, rows))
        lost = [k for k in self.acked if k not in found]
        assert not lost, "%d of %d acknowledged inserts are lost, e.g. %s" % (
            len(lost), len(self.acked), [(k, self.acked[k]) for k in sorted(lost, key=self.acked.get)[:3]])
        doubled = [k for k, n in found.items() if n != 1]
        assert not doubled, "%d inserts are there more than once, e.g. %s" % (len(doubled), doubled[:3])
        strange = [k for k in found if k not in self.acked and k not in self.unknown]
        assert not strange, "rows nobody inserted: %s" % strange[:3]
        assert self.acked, "nothing was acknowledged at all"
