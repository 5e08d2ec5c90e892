"""Clients and what they ask for: registers, lists, a bank, single rows.

Each Worker is a thread with a connection of its own to the endpoint or to some node's port. It draws its requests from
a generator seeded with the run's seed and its number, records them in the history and never repeats a write, unless it
was refused for certain. What comes out is judged by checks.py, not here.
"""
import http.client
import random
import threading
import time

import checks

WRITES = ("write", "cas", "append", "transfer", "insert")
UNDONE = {"NO_MASTER", "OVERLOADED", "TOO_LARGE"}  # nothing was executed, whatever the message
UNKNOWN_WORDS = ("may still be", "may have been", "for the answer")


class Request:
    """f, key, value: as in the history; body: of POST /query; result(answer) -> what was seen."""

    def __init__(self, f, key, value, body, result, mode="linearizable"):
        self.f, self.key, self.value, self.body, self.result, self.mode = f, key, value, body, result, mode


def judge(answer, writes):
    """(outcome, is it an answer that no fault excuses) of an answer that is not ok."""
    if answer.http == 200 or answer.json is None or answer.code is None:
        return "info", True
    if answer.code in UNDONE or not writes:
        return "fail", answer.code in ("SQL_ERROR", "BAD_REQUEST", "UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND")
    if answer.code in ("NO_QUORUM", "TIMEOUT", "INTERNAL"):
        return ("info" if any(w in answer.message for w in UNKNOWN_WORDS) else "fail"), False
    if answer.code == "REMOTE_ERROR":
        return "info", False
    return "fail", True


class Worker(threading.Thread):
    def __init__(self, run, number, workload):
        super().__init__(name="%s-%d" % (workload.name, number), daemon=True)
        self.run_state = run           # history, cluster, stopping, process numbers, tallies
        self.number = number
        self.process = run.new_process()
        self.workload = workload
        self.dice = random.Random("%s %d %s" % (run.seed, number, workload.name))
        self.last_lsn = 0              # the highest that this client has seen
        self.last = None               # what the last read of a register showed: (key, value)
        self.serial = 0
        self.clients = {}
        self.oks = 0

    def unique(self):
        """A number no other worker uses."""
        self.serial += 1
        return (self.number + 1) * 10_000_000 + self.serial

    def client(self, node):
        if self.dice.random() < 0.02:  # a fresh connection now and then
            self.drop(node)
        if node not in self.clients:
            self.clients[node] = self.run_state.cluster.client(node, timeout_s=12, keep_alive=True)
        return self.clients[node]

    def drop(self, node):
        if node in self.clients:
            self.clients.pop(node).close()

    def run(self):
        try:
            self.work()
        except Exception as e:  # a worker that ends in silence would be a check that is not made
            self.run_state.broken.append("%s: %r" % (self.name, e))
            raise

    def work(self):
        while not self.run_state.stopping.is_set():
            request = self.workload.make(self)
            retry = self.attempt(request)
            while retry and not self.run_state.stopping.is_set():
                time.sleep(0.01)
                retry = self.attempt(request)
        for node in list(self.clients):
            self.drop(node)

    def attempt(self, request):
        """One try. True when the same write may and should be tried again."""
        run = self.run_state
        node = self.dice.choice(run.nodes) if request.mode != "linearizable" or self.dice.random() < 0.25 else None
        writes = request.f in WRITES
        body = dict(request.body, timeout_ms=4000 * run.slow)
        recorded = {"f": request.f, "k": request.key, "v": request.value, "via": node}
        if not writes:
            recorded["mode"] = body["consistency"] = request.mode
        if request.mode == "session":
            recorded["min_lsn"] = body["min_lsn"] = self.last_lsn
        n = run.history.invoke(self.process, **recorded)
        try:
            answer = self.client(node).query(**body)
        except ConnectionRefusedError:
            return self.finish(n, request, "fail", err="refused")
        except (OSError, http.client.HTTPException) as e:
            self.drop(node)
            return self.finish(n, request, "info" if writes else "fail", err=type(e).__name__)
        if answer.ok:
            self.oks += 1
            self.last_lsn = max(self.last_lsn, answer.json["lsn"])
            return self.finish(n, request, "ok", v=request.result(self, answer.json), lsn=answer.json["lsn"],
                               node=answer.json["node"])
        outcome, wrong = judge(answer, writes)
        more = {"wrong": answer.text[:300]} if wrong else {}
        return self.finish(n, request, outcome, err="%s %s" % (answer.http, answer.code), **more)

    def finish(self, n, request, outcome, **what):
        run = self.run_state
        run.history.complete(n, outcome, **what)
        run.tally(request.f, outcome, what.get("err"))
        if outcome == "info":
            self.process = run.new_process()
        if outcome != "ok":
            time.sleep(0.005)
        return outcome == "fail" and self.workload.retries and request.f in WRITES


class Workload:
    """retries: whether a write that was certainly refused is sent again."""
    retries = False

    def __init__(self, seed):
        self.seed = seed

    def read_mode(self, dice):
        return dice.choices(("linearizable", "session", "stale"), (4, 1, 1))[0]


class Register(Workload):
    """Reads, writes and compare-and-set of few single rows."""
    name, workers, keys = "register", 6, 10

    def tables(self):
        rows = ", ".join("(%d, 0)" % k for k in range(self.keys))
        return ["CREATE TABLE register(k INTEGER PRIMARY KEY, v INTEGER NOT NULL)", "INSERT INTO register VALUES " + rows]

    def make(self, worker):
        dice = worker.dice
        key, draw = dice.randrange(self.keys), dice.random()
        if draw < 0.5:
            return self.read(key, self.read_mode(dice))
        if draw < 0.75:
            value = worker.unique()
            return Request("write", key, value, {"sql": "UPDATE register SET v = ? WHERE k = ?", "params": [value, key]},
                           lambda w, json: None)
        # What was read last is expected, so that about half of them take place.
        key, expected = worker.last if worker.last is not None and dice.random() < 0.9 else (key, -1)
        new = worker.unique()
        return Request("cas", key, [expected, new], {"statements": [
            {"sql": "UPDATE register SET v = ? WHERE k = ? AND v = ?", "params": [new, key, expected]},
            {"sql": "SELECT v FROM register WHERE k = ?", "params": [key]}]},
            lambda w, json: self.seen(w, key, json["results"][1]["rows"]))

    def read(self, key, mode):
        return Request("read", key, None, {"sql": "SELECT v FROM register WHERE k = ?", "params": [key]},
                       lambda w, json: self.seen(w, key, json["rows"]), mode)

    @staticmethod
    def seen(worker, key, rows):
        value = rows[0][0] if len(rows) == 1 else "%d rows" % len(rows)
        worker.last = (key, value)
        return value

    def final(self, worker):
        for key in range(self.keys):
            worker.attempt(self.read(key, "linearizable"))

    def check(self, ops, query):
        return checks.check_register([op for op in ops if op.f in ("read", "write", "cas")])


class Append(Workload):
    """Lists that only grow; each element's place is told by the answer."""
    name, workers, lists, length = "append", 3, 3, 120

    def __init__(self, seed):
        super().__init__(seed)
        self.lock = threading.Lock()
        self.generation = [0] * self.lists

    def tables(self):
        return ["CREATE TABLE list(k TEXT, n INTEGER, v INTEGER NOT NULL, PRIMARY KEY(k, n))"]

    def make(self, worker):
        which = worker.dice.randrange(self.lists)
        with self.lock:
            generation = self.generation[which]
        key = "%d.%d" % (which, generation)
        if worker.dice.random() < 0.6:
            value = worker.unique()
            return Request("append", key, value, {
                "sql": "INSERT INTO list SELECT ?1, coalesce(max(n), 0) + 1, ?2 FROM list WHERE k = ?1 RETURNING n",
                "params": [key, value]}, lambda w, json: self.place(which, generation, json["rows"][0][0]))
        return Request("list", key, None, {"sql": "SELECT v FROM list WHERE k = ? ORDER BY n", "params": [key]},
                       lambda w, json: [r[0] for r in json["rows"]], self.read_mode(worker.dice))

    def place(self, which, generation, place):
        """A list that is long enough is followed by the next, for reading it takes time."""
        if place >= self.length:
            with self.lock:
                self.generation[which] = max(self.generation[which], generation + 1)
        return place

    def final(self, worker):
        pass

    def check(self, ops, query):
        final = {}
        for key, _, value in query("SELECT k, n, v FROM list ORDER BY k, n"):
            final.setdefault(key, []).append(value)
        return checks.check_append([op for op in ops if op.f in ("append", "list")], final)


class Bank(Workload):
    """Transfers between accounts, and reads of all of them at once."""
    name, workers, accounts, opening = "bank", 4, 8, 100

    def tables(self):
        rows = ", ".join("(%d, %d)" % (a, self.opening) for a in range(self.accounts))
        return ["CREATE TABLE bank(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
                "CREATE TABLE transfer(id INTEGER NOT NULL, source INTEGER, target INTEGER, amount INTEGER)",
                "CREATE INDEX transfer_id ON transfer(id)", "INSERT INTO bank VALUES " + rows]

    def make(self, worker):
        dice = worker.dice
        if dice.random() < 0.5:
            return Request("snapshot", None, None, {"sql": "SELECT id, balance FROM bank ORDER BY id"},
                           lambda w, json: json["rows"], self.read_mode(dice))
        source, target = dice.sample(range(self.accounts), 2)
        t = {"t": worker.unique(), "s": source, "d": target, "a": dice.randint(1, 40)}
        return Request("transfer", None, (t["t"], source, target, t["a"]), {"statements": [
            {"sql": "INSERT INTO transfer SELECT :t, :s, :d, :a WHERE (SELECT balance FROM bank WHERE id = :s) >= :a",
             "params": t},
            {"sql": "UPDATE bank SET balance = balance + CASE id WHEN :s THEN -:a ELSE :a END "
             "WHERE id IN (:s, :d) AND EXISTS (SELECT 1 FROM transfer WHERE id = :t)", "params": t}]},
            lambda w, json: json["results"][0]["rows_affected"])

    def final(self, worker):
        pass

    def check(self, ops, query):
        balances = dict(map(tuple, query("SELECT id, balance FROM bank")))
        transfers = query("SELECT id, source, target, amount FROM transfer")
        return checks.check_bank([op for op in ops if op.f in ("snapshot", "transfer")], balances, transfers,
                                 self.opening)


class Insert(Workload):
    """Single rows with keys of their own. Nothing in the table forbids a second row: one written twice shows."""
    name, workers, retries = "insert", 3, True

    def tables(self):
        return ["CREATE TABLE single(k INTEGER NOT NULL)", "CREATE INDEX single_k ON single(k)"]

    def make(self, worker):
        if worker.dice.random() < 0.7 or not worker.serial:
            key = worker.unique()
            return Request("insert", None, key, {"sql": "INSERT INTO single VALUES (?)", "params": [key]},
                           lambda w, json: None)
        key = (worker.number + 1) * 10_000_000 + worker.dice.randint(max(1, worker.serial - 50), worker.serial)
        return Request("count", key, None, {"sql": "SELECT count(*) FROM single WHERE k = ?", "params": [key]},
                       lambda w, json: json["rows"][0][0], self.read_mode(worker.dice))

    def final(self, worker):
        pass

    def check(self, ops, query):
        rows = dict(map(tuple, query("SELECT k, count(*) FROM single GROUP BY k")))
        return checks.check_insert([op for op in ops if op.f in ("insert", "count")], rows)


BY_NAME = {w.name: w for w in (Register, Append, Bank, Insert)}
