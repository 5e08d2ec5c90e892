"""The data of the differential test of federation: tables that are hard to carry from node to node, as SQL text.

One list of tables, each with a home: node 0, 1 or 2. Rows are SQL literals, so that every database that is compared is
filled by the same text. Columns tell the generator of queries (federation_queries.py) what to expect of them.
"""
import sqlite3


class Column:
    """kind: int (small whole numbers), num (sums are exact in any order), wild (anything at all), text, key (of the
    table's unique key). collated: values that differ may be equal (NOCASE, RTRIM, or 1 and 1.0)."""

    def __init__(self, name, kind, collated=False):
        self.name, self.kind, self.collated = name, kind, collated


class Table:
    """key: columns that tell rows apart, none: rows may be the same. select: how to read it all, if not *."""

    def __init__(self, name, home, ddl, columns, rows, key, after=""):
        self.name, self.home, self.ddl, self.rows, self.after = name, home, ddl, rows, after
        self.columns = [c if isinstance(c, Column) else Column(*c) for c in columns]
        self.key = key

    @property
    def quoted(self):
        return quote(self.name)

    def script(self):
        """Statements that make and fill it."""
        statements = [self.ddl]
        for first in range(0, len(self.rows), 100):
            statements.append("INSERT INTO %s VALUES %s" % (
                self.quoted, ",".join("(%s)" % ",".join(row) for row in self.rows[first:first + 100])))
        if self.after:
            statements.append(self.after)
        return ";\n".join(statements)


def quote(name):
    return '"%s"' % name.replace('"', '""')


def text(value):
    return "'%s'" % value.replace("'", "''")


# Every one goes into columns of every affinity, where it becomes what that column makes of it.
NASTY = ["NULL", "0", "1", "-1", "10", "10.0", "1e1", "10.5", "'10'", "'10.0'", "' 10'", "'10 '", "'1e1'", "'0x10'",
         "'10abc'",
         "x'3130'", "x''", "''", "'abc'", "'ABC'", "'abc  '", "x'616263'", "x'00ff00'", "9223372036854775807",
         "-9223372036854775808", "'9223372036854775807'", "'9223372036854775808'", "9223372036854775808.0", "1e308",
         "-1e308",
         "5e-324", "-0.0", "0.1", "'0.1'", "9007199254740993", "9007199254740992.0", "9e999", "-9e999",
         "'a''b\"c'", "'Ωmega ü'", "'ωMEGA Ü'", "'🐻'", "'two' || char(10) || 'lines'",
         "'nul' || char(0) || 'nul'",
         "'%_*?[]'", "'NULL'", "'null'", "'host:1@t'"]


def affinities(shift):
    """A row per nasty value, in all columns; shift turns what stands in the last one."""
    rows = []
    for i, value in enumerate(NASTY):
        rows.append([str((i + shift) % len(NASTY) + 1), value, value, value, value, value, value,
                     NASTY[(i + shift) % len(NASTY)]])
    return rows


def affinity_table(name, home, shift, ddl="", after=""):
    return Table(name, home, ddl or (
        "CREATE TABLE %s(id INTEGER PRIMARY KEY, i INTEGER, t TEXT, r REAL, n NUMERIC, b BLOB, x, "
        "tc VARCHAR(20) COLLATE NOCASE)" % name),
        [("id", "key"), ("i", "wild", True), ("t", "wild"), ("r", "wild", True), ("n", "wild", True),
         ("b", "wild", True),
         ("x", "wild", True), ("tc", "wild", True)], affinities(shift), ["id"], after)


NAMES = ["Anna", "anna", "ANNA ", "Bob", "bob  ", "Çelik", "çelik", "O'Hara", "\"quoted\"", "", " ", "Zoë", "zoë",
         "Eve", "eve"]
CITIES = ["Berlin", "berlin", "Bern", "", "São Paulo", "NULL"]
ITEMS = ["honey", "Honey", "berries", "salmon", "", "it's", "100%", "a_b", "ants "]


def people():
    rows = []
    for i in range(1, 41):
        rows.append([str(i), text(NAMES[i * 7 % len(NAMES)]) if i % 9 else "NULL",
                     text(CITIES[i * 5 % 6]) if i % 7 else "NULL",
                     str(i // 2) if i > 1 and i % 5 else "NULL", str(i * 3 % 17 * 0.25) if i % 4 else "NULL"])
    return Table("people", 0, "CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, city TEXT, "
                 "boss INTEGER REFERENCES people, score REAL)",
                 [("id", "key"), ("name", "text", True), ("city", "text"), ("boss", "int"), ("score", "num")], rows,
                 ["id"],
                 "CREATE INDEX people_city ON people(city, name)")


def orders():
    rows = []
    for i in range(1, 121):
        rows.append([str(i), str(i * 11 % 47) if i % 13 else "NULL",
                     text(ITEMS[i * 7 % len(ITEMS)]) if i % 10 else "NULL",
                     str(i % 6) if i % 8 else "NULL", str(i * 37 % 400 * 0.25),
                     "'2024-%02d-%02d'" % (i % 12 + 1, i % 28 + 1)])
    return Table("orders", 1, "CREATE TABLE orders(id INTEGER PRIMARY KEY, person INT, item TEXT, qty INTEGER, "
                 "amount REAL, day DATE)",
                 [("id", "key"), ("person", "int"), ("item", "text"), ("qty", "int"), ("amount", "num"),
                  ("day", "text")],
                 rows, ["id"], "CREATE INDEX orders_person ON orders(person); CREATE UNIQUE INDEX orders_day ON "
                 "orders(day, id DESC); CREATE INDEX orders_part ON orders(item) WHERE qty > 2; "
                 "CREATE INDEX orders_expr ON orders(lower(item))")


def order_items():
    rows = []
    for i in range(1, 90):
        rows.append([str(i * 5 % 131), str(i % 4), text("note " + ITEMS[i % len(ITEMS)]) if i % 6 else "NULL",
                     NASTY[i % len(NASTY)]])
    rows = list({(r[0], r[1]): r for r in rows}.values())
    return Table("order items", 1, 'CREATE TABLE "order items"(order_id INTEGER, "select" INTEGER, '
                 '"the ""note""" TEXT, "value 100%", PRIMARY KEY(order_id, "select" DESC)) WITHOUT ROWID',
                 [("order_id", "key"), ("select", "key"), ('the "note"', "text"), ("value 100%", "wild", True)], rows,
                 ["order_id", "select"], 'CREATE INDEX "index of" ON "order items"("the ""note""" COLLATE NOCASE)')


def tags():
    rows = [[text(t), str(i * 3 % 11) if i % 5 else "NULL", text(p)] for i, (t, p) in enumerate(
        [("honey", "x"), ("BERRIES", "x  "), ("Salmon", "x y"), ("", ""), ("ants", " x"), ("it's", "X"),
         ("Ünicode", "  "),
         ("ünicode", "Anna"), ("Anna", "Anna  "), ("bob", "bob"), ("9", "10"), ("10", "10 "), ("10.0", "10.0")])]
    return Table("tags", 2, "CREATE TABLE tags(tag TEXT COLLATE NOCASE PRIMARY KEY, weight INTEGER, "
                 "padded TEXT COLLATE RTRIM) WITHOUT ROWID",
                 [("tag", "key", True), ("weight", "int"), ("padded", "text", True)], rows, ["tag"],
                 "CREATE INDEX tags_padded ON tags(padded)")


def dup():
    rows = [[str(i % 7) if i % 6 else "NULL", text(ITEMS[i % 4]) if i % 5 else "NULL",
             str(i % 3 * 0.5)] for i in range(60)]
    return Table("dup", 2, "CREATE TABLE dup(k INTEGER, v TEXT, w REAL)", [("k", "int"), ("v", "text"), ("w", "num")],
                 rows + rows[:20], [], "CREATE INDEX dup_k ON dup(k)")


def edges():
    rows = [[str(i), str(i * i % 29)] for i in range(1, 29)] + [["5", "5"], ["1", "2"], ["NULL", "3"], ["3", "NULL"]]
    return Table("edges", 2, "CREATE TABLE edges(src INTEGER, dst INTEGER)", [("src", "int"), ("dst", "int")], rows, [])


def strict_any():
    rows = [[str(i + 1), v, "CAST(%s AS TEXT)" % v if v != "NULL" else v] for i, v in enumerate(NASTY)]
    return Table("strictly", 1, "CREATE TABLE strictly(id INTEGER PRIMARY KEY, a ANY, t TEXT) STRICT",
                 [("id", "key"), ("a", "wild", True), ("t", "wild")], rows, ["id"],
                 "CREATE INDEX strictly_a ON strictly(a)")


def declared():
    """Declared types whose affinity surprises: FLOATING POINT is INTEGER, STRING is NUMERIC."""
    rows = [[str(i + 1)] + [v] * 7 for i, v in enumerate(NASTY)]
    return Table("declared", 2, 'CREATE TABLE declared(id INT PRIMARY KEY NOT NULL, f FLOATING POINT, s STRING, a ANY, '
                 'd DECIMAL(5,2), c NATIVE CHARACTER(70), "double" DOUBLE PRECISION, dt "date time")',
                 [("id", "key")] + [(n, "wild", True) for n in ("f", "s", "a", "d", "c", "double", "dt")], rows, ["id"],
                 "CREATE INDEX declared_f ON declared(f); CREATE INDEX declared_s ON declared(s)")


def generated():
    rows = [[str(i), str(i * 7 % 10) if i % 4 else "NULL", text(ITEMS[i % len(ITEMS)])] for i in range(1, 25)]
    return Table("generated", 1, "CREATE TABLE generated(id INTEGER PRIMARY KEY, a INTEGER, t TEXT, "
                 "g INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL, h TEXT AS (upper(t)) STORED)",
                 [("id", "key"), ("a", "int"), ("t", "text"), ("g", "int"), ("h", "text")], rows, ["id"],
                 "CREATE INDEX generated_g ON generated(g)")


def big():
    # Not the smallest id of all: SQLite does not find it by the REAL that equals it where it looks for rowids.
    ids = [-9223372036854775807, -9007199254740993, -1, 0, 1, 9007199254740992, 9007199254740993,
           4611686018427387904, 9223372036854775806, 9223372036854775807]
    rows = [[str(v), str(-v) if v else "-9223372036854775808", repr(float(v))] for v in ids]
    return Table("big", 1, "CREATE TABLE big(id INTEGER PRIMARY KEY, u BIGINT UNIQUE, approx REAL)",
                 [("id", "wild"), ("u", "wild"), ("approx", "wild", True)], rows, ["id"])


def twin(home):
    """A table of this name is on every node, each with rows of its own."""
    rows = [[str(i), text("%s of %d" % ("abc"[i % 3], home)), str(i * (home + 2) % 7)] for i in range(1, 13)]
    t = Table("twin", home, "CREATE TABLE twin(id INTEGER PRIMARY KEY, t TEXT, v INT)",
              [("id", "key"), ("t", "text"), ("v", "int")], rows, ["id"])
    t.label = "twin%d" % home
    return t


def odd_rowid():
    rows = [[str(i), str(20 - i), text("r%d" % i)] for i in range(1, 9)]
    return Table("odd", 1, "CREATE TABLE odd(rowid TEXT, oid INTEGER, _rowid_ TEXT)",
                 [("rowid", "wild"), ("oid", "int"), ("_rowid_", "text")], rows, ["oid"])


def tables():
    """All of them; a view on some is among them, and tables without rows."""
    found = [
        people(), affinity_table("affa", 0, 1), affinity_table(
            "affb", 1, 5, after="CREATE INDEX affb_t ON affb(t); "
            "CREATE INDEX affb_x ON affb(x); CREATE INDEX affb_r ON affb(r)"),
        affinity_table("affc", 2, 9, "CREATE TABLE affc(id INTEGER NOT NULL, i INTEGER, t TEXT, r REAL, n NUMERIC, "
                       "b BLOB, x, tc TEXT COLLATE NOCASE, PRIMARY KEY(id)) WITHOUT ROWID",
                       "CREATE INDEX affc_i ON affc(i); "
                       "CREATE INDEX affc_n ON affc(n); CREATE INDEX affc_tc ON affc(tc)"),
        orders(), order_items(), tags(), dup(), edges(), strict_any(), declared(), generated(), big(), odd_rowid(),
        twin(0), twin(1), twin(2),
        Table("empty_b", 1, "CREATE TABLE empty_b(id INTEGER PRIMARY KEY, t TEXT)", [("id", "key"), ("t", "text")],
              [], ["id"]),
        Table("empty_c", 2, "CREATE TABLE empty_c(id INTEGER, k, v TEXT)",
              [("id", "int"), ("k", "int"), ("v", "text")], [], []),
        Table("v_orders", 1, "CREATE VIEW v_orders AS SELECT id, person, item, qty + 0 AS qty, amount * 2 AS twice, "
              "CAST(qty AS TEXT) AS words FROM orders WHERE qty > 0",
              [("id", "key"), ("person", "int"), ("item", "text"), ("qty", "int"), ("twice", "num"), ("words", "wild")],
              [], ["id"]),
        Table("ids", 2, "CREATE TABLE ids(v INTEGER)", [("v", "int")],
              [[str(v)] for v in (1, 2, 3, 3, 5, 8, 13, 21, 34)], []),
        Table("words", 1, "CREATE TABLE words(w)", [("w", "wild", True)],
              [["'honey'"], ["NULL"], ["3"], ["'10'"], ["x'3130'"]],
              []),
        Table("items", 0, "CREATE TABLE items(item TEXT, id INTEGER, price NUMERIC(6,2), PRIMARY KEY(item, id))",
              [("item", "key"), ("id", "key"), ("price", "num")],
              [[text(v), str(i), str(i * 0.5)] for i, v in enumerate(ITEMS)], ["item", "id"]),
    ]
    return {getattr(t, "label", t.name): t for t in found}


def names_in_one_place(table, label):
    """A table as it is called where all are together: twins get names of their own."""
    return label if table.name != label else table.name


def fill_sqlite(all_tables):
    """All tables in a database in memory, twins under their labels."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    for label, table in all_tables.items():
        db.executescript(script_for_one_place(table, label))
    return db


def script_for_one_place(table, label):
    script = table.script()
    return script if table.name == label else script.replace(" %s(" % table.name, " %s(" % label).replace(
        "INTO %s" % table.quoted, "INTO %s" % quote(label))
