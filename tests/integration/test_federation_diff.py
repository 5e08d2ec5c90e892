"""Federation against no federation: what is asked of tables on three clusters is answered as if all were in one.

Every query runs three times: in SQLite in this process, on a cluster that has all tables, and on one of three clusters
that have a part each, the other parts named host:port@table. Columns, types, values with their kinds, order where it is
fixed, and errors in kind must be the same. GRIZZLY_DIFF_SEED and GRIZZLY_DIFF_COUNT: other queries, more of them.
"""
import base64
import collections
import json
import os
import random
import re
import sqlite3
import time

from client import Client
from federation_data import fill_sqlite, quote, script_for_one_place, tables
from federation_generator import Generator
from federation_queries import hand_written
from harness import scenario

SEED = 20260101
STEPS_MAX = 400  # times 10,000 steps of SQLite: a query that takes longer is left out


class Refused(Exception):
    """A database did not answer; kind is what can be compared."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def to_json(value):
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"$real": "inf" if value > 0 else "-inf"}
    return value


def from_json(value):
    if isinstance(value, dict):
        if "$blob" in value:
            return base64.b64decode(value["$blob"])
        return {"inf": float("inf"), "-inf": float("-inf")}[value["$real"]]
    return value


def exact(value):
    """Comparable and hashable: 1 is not 1.0, -0.0 not 0.0."""
    return (type(value).__name__, repr(value))


def loose(value):
    """Values that SQLite may count as equal are the same."""
    if isinstance(value, str):
        return re.sub(r"[A-Z]", lambda m: m.group().lower(), value).rstrip(" ")
    if isinstance(value, float) and abs(value) < 1e300 and value == int(value):
        return int(value)
    return value if not isinstance(value, bytes) else ("blob", value)


class Sqlite:
    """SQLite itself, in this process."""

    def __init__(self, all_tables):
        self.db = fill_sqlite(all_tables)
        self.db.text_factory = lambda b: b.decode("utf-8", "replace")

    def run(self, query):
        """(columns, rows); None when it takes too long."""
        self.steps = 0
        self.db.set_progress_handler(self.step, 10000)
        try:
            cursor = self.db.execute(query.put(quote), query.params if query.params is not None else ())
            rows = cursor.fetchall()
        except sqlite3.Error as e:
            if self.steps > STEPS_MAX:
                return None
            raise Refused("SQL_ERROR", str(e)) from e
        return [c[0] for c in cursor.description], rows

    def step(self):
        self.steps += 1
        return self.steps > STEPS_MAX


class Asked:
    """A cluster, and what it calls each table."""

    def __init__(self, c, name_of):
        self.client = Client("127.0.0.1", c.port, c.token, 60.0 * c.ctx.slow, keep_alive=True)
        self.name_of = name_of

    def run(self, query):
        params = query.params
        if isinstance(params, dict):
            params = {k: to_json(v) for k, v in params.items()}
        elif params is not None:
            params = [to_json(v) for v in params]
        body = {"sql": query.put(self.name_of)}
        if params is not None:
            body["params"] = params
        answer = self.client.request("POST", "/query", json.dumps(body))
        if not answer.ok:
            raise Refused(answer.code, "%s: %s" % (answer.code, answer.text[:300]))
        rows = [tuple(from_json(v) for v in row) for row in answer.json["rows"]]
        return answer.json["columns"], rows, answer.json["types"]


class Clusters:
    """One cluster with everything and three with a part each, started together."""

    def __init__(self, ctx):
        self.ctx, self.tables = ctx, tables()
        self.all = ctx.cluster(replicas=0)
        self.parts = [ctx.cluster(replicas=0) for _ in range(3)]
        for c in self.parts:  # they know each other's tokens, and their own
            c.config["remote"] = {"nodes": {"127.0.0.1:%d" % o.port: {"token_file": os.path.join(o.data_dir, "token")}
                                            for o in self.parts}}
            c.write_config()
        for c in [self.all] + self.parts:
            c.start_supervisor()
        for c in [self.all] + self.parts:
            c.wait_ready()
            c.wait_all_up()
        self.fill()
        self.sqlite = Sqlite(self.tables)
        self.local = Asked(self.all, quote)
        self.names = random.Random(SEED)

    def fill(self):
        for label, table in self.tables.items():
            self.all.ok(script_for_one_place(table, label))
            self.parts[table.home].ok(table.script())

    def asked(self, node, self_of_hundred=0):
        """The cluster node, which calls the others' tables by their addresses, and its own now and then."""
        def name_of(label):
            table = self.tables[label]
            if table.home == node and self.names.randrange(100) >= self_of_hundred:
                return table.quoted
            return "127.0.0.1:%d@%s" % (self.parts[table.home].port, self.spelling(table.name))
        return Asked(self.parts[node], name_of)

    def spelling(self, name):
        """Any of the ways to quote it, or none where that is possible."""
        ways = [quote(name), "[%s]" % name, "`%s`" % name, "'%s'" % name]
        return self.names.choice(ways + ([name, name.upper()] if name.isidentifier() else []))

    def home(self, label):
        return self.tables[label].home


def outcome(database, query):
    """(columns, rows, types) or the Refused."""
    try:
        found = database.run(query)
    except Refused as e:
        return e
    return found if found is None or len(found) == 3 else (*found, None)


def difference(query, one, other):
    """What tells two outcomes apart; None when nothing does."""
    if isinstance(one, Refused) or isinstance(other, Refused):
        kinds = [o.kind if isinstance(o, Refused) else "an answer" for o in (one, other)]
        return None if kinds[0] == kinds[1] else "%s, %s (%s)" % (
            *kinds, "; ".join(str(o) for o in (one, other) if isinstance(o, Refused)))
    if one[0] != other[0]:
        return "columns %r, %r" % (one[0], other[0])
    # A CAST in a view has a type where the view is read as a table, and none where it is part of the query.
    if one[2] is not None and other[2] is not None and one[2] != other[2] and "v_orders" not in query.labels():
        return "types %r, %r" % (one[2], other[2])
    key = loose if query.loose else exact
    rows, others = ([tuple(key(v) for v in row) for row in o[1]] for o in (one, other))
    if query.ordered:
        return None if rows == others else "order or values: %s, %s" % (shown(rows), shown(others))
    rows, others = collections.Counter(rows), collections.Counter(others)
    if rows == others:
        return None
    return "%d rows, %d rows; only in the first: %s; only in the second: %s" % (
        sum(rows.values()), sum(others.values()), shown(list((rows - others).elements())),
        shown(list((others - rows).elements())))


def shown(rows):
    return repr(rows[:3])[:300] + (" …" if len(rows) > 3 else "")


def compare(clusters, asked, queries):
    """Runs all; returns how many were compared, and what differed."""
    count, found = 0, []
    for query in queries:
        if "generated" in query.labels() and re.search("RIGHT|FULL", query.sql):
            continue  # SQLite 3.40 itself errs: virtual columns of rows without a match have another row's values
        expected = outcome(clusters.sqlite, query)
        if expected is None or not isinstance(expected, Refused) and len(expected[1]) > 20000:
            continue
        count += 1
        if isinstance(expected, Refused) != query.fails:
            found.append("%r\n\tSQLite: %s" % (query, expected))
        local = outcome(clusters.local, query)
        federated = asked(query)
        where, spread = outcome_of(federated, query)
        for what, one, other in (("SQLite, one cluster", expected, local), ("one cluster, three", local, spread)):
            told = difference(query, one, other)
            if told:
                found.append("%s\n\t%s\n\t%s: %s" % (query, where, what, told))
    return count, found


def outcome_of(federated, query):
    """The text that was sent, and its outcome."""
    text = query.put(federated.name_of)
    again = type(query)(text, query.params)
    return text, outcome(federated, again)


def fresh_seed():
    return int(os.environ.get("GRIZZLY_DIFF_SEED", "0")) or int(time.time() * 1000) % 1000000000


def queries_wanted(ctx, plain, sanitizer):
    count = int(os.environ.get("GRIZZLY_DIFF_COUNT", "0"))
    return count or (plain if not ctx.sanitizer else sanitizer)


def must_agree(ctx, count, found, seed):
    ctx.note("%d queries, fresh seed %d" % (count, seed))
    assert not found, "%d of %d differ (GRIZZLY_DIFF_SEED=%d):\n%s" % (len(found), count, seed, "\n".join(found[:20]))


@scenario(start=False, timeout_s=120)
def tables_of_one_node_are_asked_whole(ctx):
    clusters = Clusters(ctx)
    seed, total, found = fresh_seed(), 0, []
    for home in range(3):
        labels = [label for label in clusters.tables if clusters.home(label) == home]
        queries = [q for q in hand_written() if q.labels() and q.labels() <= set(labels)]
        for s in (SEED + home, seed + home):
            generator = Generator(s, clusters.tables, labels)
            queries += [generator.query() for _ in range(queries_wanted(ctx, 80, 20))]
        askers = [clusters.asked(node, 100) for node in range(3)]
        picks = random.Random(SEED)
        count, differing = compare(clusters, lambda q: askers[picks.randrange(3)], queries)
        total, found = total + count, found + differing
    must_agree(ctx, total, found, seed)


@scenario(start=False, timeout_s=120)
def tables_of_three_nodes_are_joined(ctx):
    clusters = Clusters(ctx)
    seed = fresh_seed()
    queries = hand_written()
    if ctx.sanitizer:
        queries = queries[::5]
    for s in (SEED, seed):
        generator = Generator(s, clusters.tables, clusters.tables)
        queries += [generator.query() for _ in range(queries_wanted(ctx, 150, 25))]
    askers = [clusters.asked(node, 15) for node in range(3)]
    picks = random.Random(SEED)
    must_agree(ctx, *compare(clusters, lambda q: askers[picks.randrange(3)], queries), seed)
