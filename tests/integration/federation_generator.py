"""Random queries for the differential test of federation, driven by a seed. Pure: no processes, no clock."""
import random
import re

from federation_data import CITIES, ITEMS, NAMES, NASTY, quote, text
from federation_queries import Query

PARAMETER = re.compile("⟦(\\d+)⟧")  # the place of self.params[n] while a text is put together


class Source:
    """What stands in a FROM: columns as they are written in expressions, key that tells its rows apart or []."""

    def __init__(self, sql, columns, key, alias=""):
        self.sql, self.columns, self.key, self.alias = sql, columns, key, alias


class Generator:
    """Random queries over the labels given."""

    def __init__(self, seed, tables, labels):
        self.random = random.Random(seed)
        self.tables, self.labels = tables, sorted(labels)

    def pick(self, things):
        return self.random.choice(things)

    def chance(self, of_hundred):
        return self.random.randrange(100) < of_hundred

    def query(self):
        self.aliases, self.params, self.loose = 0, [], False
        self.ctes, self.bare = [], set()
        if self.chance(12):
            sql, ordered = self.compound(), False
        else:
            sql, ordered = self.select()
        if self.ctes:
            sql = "WITH %s %s" % (", ".join(self.ctes), sql)
        sql, params = self.number_params(sql)
        return Query(sql, params, ordered, self.loose)

    def number_params(self, sql):
        """Parameters in the order of the text, or named."""
        if not self.params:
            return sql, None
        if self.chance(50):
            values = []

            def positional(m):
                values.append(self.params[int(m.group(1))])
                return "?"
            return PARAMETER.sub(positional, sql), values
        sign = self.pick(":@$")
        used = {int(n) for n in PARAMETER.findall(sql)}
        return PARAMETER.sub(lambda m: "%sp%s" % (sign, m.group(1)), sql), {"p%d" % i: self.params[i] for i in used}

    # -- sources

    def source(self, label=None):
        label = label or self.pick(self.labels)
        table = self.tables[label]
        self.aliases += 1
        alias = "s%d" % self.aliases
        if label == table.name and label not in self.bare and self.chance(20):  # called by its own name
            self.bare.add(label)
            columns = [("%s.%s" % (table.quoted, quote(c.name)), c) for c in table.columns]
            return Source("{%s}" % label, columns, [ref for ref, c in columns if c.name in table.key], table.quoted)
        columns = [(alias + "." + (c.name if c.name.isidentifier() and c.name != "select" else quote(c.name)), c)
                   for c in table.columns]
        key = [ref for ref, c in columns if c.name in table.key]
        if self.chance(82):
            return Source("{%s} %s%s" % (label, "AS " if self.chance(50) else "", alias), columns, key, alias)
        inner = " WHERE " + self.condition([Source("", [(quote(c.name), c) for c in table.columns], [])],
                                           0) if self.chance(70) else ""
        body = "SELECT * FROM {%s}%s" % (label, inner)
        if self.chance(40):
            self.ctes.append("%s AS %s(%s)" % (alias, self.pick(["", "MATERIALIZED ", "NOT MATERIALIZED "]), body))
            return Source(alias, columns, key, alias)
        return Source("(%s) AS %s" % (body, alias), columns, key, alias)

    def sources(self):
        """[sources], and the FROM clause."""
        count = self.pick([1, 2, 2, 2, 2, 3, 3])
        found = [self.source() for _ in range(count)]
        clause = found[0].sql
        for i in range(1, count):
            kind = self.pick([",", "JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN",
                              "CROSS JOIN", "INNER JOIN"])
            if kind == "," or kind == "CROSS JOIN" and self.chance(40):
                clause += " CROSS JOIN %s ON %s" % (found[i].sql, self.link(found[:i], found[i]))
            else:
                clause += " %s %s ON %s" % (kind, found[i].sql, self.link(found[:i], found[i]))
        return found, clause

    def link(self, before, new):
        a, ca = self.column(before)
        b, cb = self.column([new])
        for _ in range(8):  # rather columns that have something in common
            if (ca.kind in ("int", "key")) and cb.kind in ("int",
                                                           "key") or ca.kind == cb.kind == "wild" and self.chance(50):
                break
            (a, ca), (b, cb) = self.column(before), self.column([new])
        if self.chance(50):
            a, b = b, a
        form = self.random.randrange(20)
        if form < 11:
            joined = "%s = %s" % (a, b)
        elif form == 11:
            joined = "%s IS %s" % (a, b)
        elif form == 12:
            joined = "%s IS NOT DISTINCT FROM %s" % (a, b)
        elif form == 13:
            joined = "%s = %s + %d" % (a, b, self.random.randrange(3))
        elif form == 14:
            joined = "%s = %s COLLATE %s" % (a, b, self.pick(["NOCASE", "RTRIM", "BINARY"]))
        elif form == 15:
            joined = "CAST(%s AS %s) = %s" % (a, self.pick(["TEXT", "INTEGER", "REAL", "NUMERIC"]), b)
        elif form == 16:
            c, _ = self.column([new])
            joined = "(%s = %s OR %s = %s)" % (a, b, a, c)
        elif form == 17:
            c, _ = self.column([new])
            d, _ = self.column(before)
            joined = "(%s, %s) = (%s, %s)" % (a, d, b, c)
        elif form == 18:
            joined = "%s BETWEEN %s AND %s" % (a, b, self.constant(cb))
        else:
            joined = "%s = %s AND %s %s %s" % (a, b, a, self.pick(["<", ">=", "<>"]), self.constant(ca))
        if self.chance(15):
            joined += " AND " + self.condition([new] if self.chance(60) else before + [new], 1)
        return joined

    def column(self, sources):
        return self.pick(self.pick(sources).columns)

    # -- expressions

    def literal(self, column):
        if self.chance(7):
            return "NULL"
        if column.kind in ("int", "key", "num") and self.chance(75):
            return str(self.random.randrange(-1, 45)) if self.chance(80) else self.pick(["'5'", "5.0", "'5.0'", "2.5",
                                                                                         "x'35'", "''"])
        if column.kind == "text" and self.chance(75):
            return self.pick([text(v) for v in NAMES + ITEMS] + ["'2024-05-06'"] +
                             [c if c == "NULL" else text(c) for c in CITIES])
        return self.pick(NASTY)

    def constant(self, column):
        literal = self.literal(column)
        if not self.chance(25) or "||" in literal:
            return literal
        self.params.append(literal_value(literal))
        return "⟦%d⟧" % (len(self.params) - 1)

    def condition(self, sources, depth):
        form = self.random.randrange(30 if depth < 2 else 17)
        ref, column = self.column(sources)
        if form < 5:
            return "%s %s %s" % (ref, self.pick(["=", "=", "<", "<=", ">", ">=", "<>", "IS", "IS NOT"]),
                                 self.constant(column))
        if form == 5:
            return "%s IS %sNULL" % (ref, self.pick(["", "NOT "]))
        if form == 6:
            return "%s %sBETWEEN %s AND %s" % (ref, self.pick(["", "", "NOT "]), self.constant(column),
                                               self.constant(column))
        if form == 7:
            return "%s %sLIKE %s" % (ref, self.pick(["", "NOT "]),
                                     self.pick(["'a%'", "'%A%'", "'_o%'", "'10%'", "'%'", "'ho\\_%' ESCAPE '\\'",
                                                                             "'HONEY'", "''", "NULL"]))
        if form == 8:
            return "%s %sGLOB %s" % (ref, self.pick(["", "NOT "]),
                                     self.pick(["'a*'", "'*[A-Z]*'", "'?o*'", "'10*'", "'*'", "''", "'[^a]*'"]))
        if form in (9, 10):
            return "%s %sIN (%s)" % (ref, self.pick(["", "", "NOT "]),
                                     ", ".join(self.constant(column) for _ in range(self.random.randrange(5))))
        if form == 11:
            return "%s COLLATE %s %s %s" % (ref, self.pick(["NOCASE", "RTRIM", "BINARY"]),
                                            self.pick(["=", "<", ">="]), self.constant(column))
        if form == 12:
            other, _ = self.column(sources)
            return "%s %s %s" % (ref, self.pick(["=", "<", "<>", "IS NOT"]), other)
        if form == 13:
            return "%s = %s" % (self.expression(sources), self.constant(column))
        if form == 14:
            return "typeof(%s) %s %s" % (ref, self.pick(["=", "<>"]),
                                         self.pick(["'text'", "'integer'", "'real'", "'blob'", "'null'"]))
        if form == 15:
            return "+%s %s %s" % (ref, self.pick(["=", "<", ">"]), self.constant(column))
        if form == 16:
            other, second = self.column(sources)
            return "(%s, %s) %s (%s, %s)" % (ref, other, self.pick(["=", "<", ">=", "IS"]), self.constant(column),
                                             self.constant(second))
        if form < 20:
            return "(%s %s %s)" % (self.condition(sources, depth + 1), self.pick(["AND", "OR", "OR"]),
                                   self.condition(sources, depth + 1))
        if form == 20:
            return "NOT (%s)" % self.condition(sources, depth + 1)
        if form == 21:
            return "CASE WHEN %s THEN %s ELSE %s END" % (self.condition(sources, depth + 1),
                                                         self.condition(sources, depth + 1),
                                                         self.condition(sources, depth + 1))
        return self.subquery_condition(sources, ref, depth)

    def inner(self, sources, depth):
        """(FROM and WHERE of a subquery, its source)"""
        label = self.pick(self.labels)
        self.aliases += 1
        alias = "q%d" % self.aliases
        table = self.tables[label]
        columns = [("%s.%s" % (alias, quote(c.name)), c) for c in table.columns]
        source = Source("{%s} %s" % (label, alias), columns, [])
        words = []
        if self.chance(60):
            words.append("%s = %s" % (self.column([source])[0], self.column(sources)[0]))
        if self.chance(50):
            words.append(self.condition([source], depth + 1))
        return source.sql + (" WHERE " + " AND ".join(words) if words else ""), source

    def subquery_condition(self, sources, ref, depth):
        clause, source = self.inner(sources, depth)
        form = self.random.randrange(4)
        if form == 0:
            return "%sEXISTS (SELECT 1 FROM %s)" % (self.pick(["", "", "NOT "]), clause)
        if form == 1:
            return "%s %s (SELECT %s(%s) FROM %s)" % (ref, self.pick(["=", "<", ">", ">=", "<>"]),
                                                      self.pick(["min", "max", "count"]),
                                                      self.column([source])[0], clause)
        return "%s %sIN (SELECT %s FROM %s)" % (ref, self.pick(["", "", "NOT "]), self.column([source])[0], clause)

    def expression(self, sources):
        ref, column = self.column(sources)
        form = self.random.randrange(14)
        if form == 0:
            return "typeof(%s)" % ref
        if form == 1:
            return "%s + %d" % (ref, self.random.randrange(-2, 3))
        if form == 2:
            return "%s || '-'" % ref
        if form == 3:
            return "length(%s)" % ref
        if form == 4:
            return "coalesce(%s, %s)" % (ref, self.column(sources)[0])
        if form == 5:
            return "quote(%s)" % ref
        if form == 6:
            return "upper(%s)" % ref
        if form == 7:
            return "CAST(%s AS %s)" % (ref, self.pick(["TEXT", "INTEGER", "REAL", "NUMERIC", "BLOB"]))
        if form == 8:
            return "substr(%s, 2, 3)" % ref
        if form == 9:
            return "%s %s %s" % (ref, self.pick(["=", "<", "IS"]), self.constant(column))
        if form == 10:
            return "-%s" % ref
        if form == 11:
            return "nullif(%s, %s)" % (ref, self.constant(column))
        return ref

    # -- statements

    def select(self):
        """(text, whether its order is fixed)"""
        found, clause = self.sources()
        where = ""
        if self.chance(55):
            where = " WHERE " + " AND ".join(self.condition(found, 0) for _ in range(self.pick([1, 1, 1, 2])))
        form = self.random.randrange(10)
        if form < 2:
            return self.grouped(found, clause, where), False
        if form == 2:
            self.loose = True
            return "SELECT DISTINCT %s FROM %s%s" % (self.outputs(found, False), clause, where), False
        if form == 3:
            return self.windowed(found, clause, where), False
        outputs = self.pick(["*", "*", found[0].alias + ".*"]) if self.chance(20) else self.outputs(found, True)
        sql = "SELECT %s FROM %s%s" % (outputs, clause, where)
        if any(not s.key for s in found) or self.chance(45):
            return sql, False
        terms = [self.column(found)[0] + self.pick(["", " DESC", " COLLATE NOCASE", " NULLS LAST", " DESC NULLS FIRST"])
                 for _ in range(self.random.randrange(3))]
        terms += [k + self.pick(["", " DESC"]) for s in found for k in s.key]
        sql += " ORDER BY " + ", ".join(terms)
        if self.chance(60):
            sql += " LIMIT %d" % self.random.randrange(0, 25)
            if self.chance(50):
                sql += " OFFSET %d" % self.random.randrange(0, 15)
        return sql, True

    def outputs(self, sources, subqueries):
        found = []
        for i in range(self.pick([1, 2, 3, 4])):
            if subqueries and self.chance(8):
                clause, source = self.inner(sources, 1)
                found.append("(SELECT %s(%s) FROM %s) AS c%d" % (self.pick(["count", "min", "max"]),
                                                                 self.column([source])[0], clause, i))
                self.loose = True
            elif self.loose is False and subqueries:
                found.append("%s AS c%d" % (self.expression(sources), i))
            else:
                found.append("%s AS c%d" % (self.column(sources)[0], i))
        return ", ".join(found)

    def grouped(self, sources, clause, where):
        self.loose = True
        keys = [self.column(sources)[0] for _ in range(self.pick([0, 1, 1, 1, 2]))]
        outputs = ["%s AS k%d" % (k, i) for i, k in enumerate(keys)]
        for i in range(self.pick([1, 2, 3])):
            ref, column = self.column(sources)
            calls = ["count(*)", "count(%s)" % ref, "count(DISTINCT %s)" % ref, "min(%s)" % ref, "max(%s)" % ref]
            if column.kind in ("int", "num"):
                calls += ["sum(%s)" % ref, "total(%s)" % ref, "avg(%s)" % ref] * 2
            call = self.pick(calls)
            if self.chance(15):
                call += " FILTER (WHERE %s)" % self.condition(sources, 1)
            outputs.append("%s AS a%d" % (call, i))
        sql = "SELECT %s FROM %s%s" % (", ".join(outputs), clause, where)
        if keys:
            sql += " GROUP BY " + ", ".join(keys)
            if self.chance(35):
                sql += " HAVING " + self.pick(["count(*) > 1", "count(*) < 3",
                                               "max(%s) IS NOT NULL" % self.column(sources)[0],
                                               "min(%s) > 2" % self.column(sources)[0]])
        return sql

    def windowed(self, sources, clause, where):
        ref, _ = self.column(sources)
        numbers = [r for s in sources for r, c in s.columns if c.kind in ("int", "num")]
        call = self.pick(["rank()", "dense_rank()", "count(*)",
                          "count(%s)" % ref] + ["sum(%s)" % n for n in numbers[:2]])
        over = "PARTITION BY %s " % self.column(sources)[0] if self.chance(60) else ""
        over += "ORDER BY %s%s" % (self.column(sources)[0],
                                   self.pick(["", " DESC"])) if self.chance(80) or "rank" in call else ""
        return "SELECT %s, %s OVER (%s) AS w FROM %s%s" % (self.outputs(sources, False), call, over, clause, where)

    def arm_column(self, source):
        """Of a rowid a value, for the collation of one column with it differs between nodes (docs/federation.md)."""
        ref, column = self.column([source])
        return ref + " + 0" if column.kind == "key" and not column.collated else ref

    def compound(self):
        self.loose = True
        width, arms = self.pick([1, 1, 2]), []
        for _ in range(self.pick([2, 2, 3])):
            source = self.source()
            where = " WHERE " + self.condition([source], 0) if self.chance(60) else ""
            outputs = ", ".join(self.arm_column(source) + " AS c%d" % i for i in range(width))
            arms.append("SELECT %s FROM %s%s" % (outputs, source.sql, where))
        sql = arms[0]
        for arm in arms[1:]:
            sql += " %s %s" % (self.pick(["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]), arm)
        return sql


def literal_value(literal):
    """The value of an entry of NASTY or of a literal made above, as a parameter."""
    if literal == "NULL":
        return None
    if literal.startswith("x'"):
        return bytes.fromhex(literal[2:-1])
    if literal.startswith("'"):
        return literal[1:-1].replace("''", "'")
    try:
        return int(literal)
    except ValueError:
        return float(literal)
