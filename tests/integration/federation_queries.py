"""Queries of the differential test of federation, written by hand (federation_generator.py makes others).

A table stands as {label} in the text; the test puts there what the database that is asked calls it.
"""
import re

PLACEHOLDER = re.compile(r"\{(\w+(?: \w+)*)\}")


class Query:
    """ordered: the whole order of the rows is fixed. loose: of values that count as equal (1 and 1.0, 'a' and 'A' under
    NOCASE) any may stand for the others. fails: an error is what is expected."""

    def __init__(self, sql, params=None, ordered=False, loose=False, fails=False):
        self.sql, self.params = sql, params
        self.ordered, self.loose, self.fails = ordered, loose, fails

    def labels(self):
        return set(PLACEHOLDER.findall(self.sql))

    def put(self, name_of):
        """The text with name_of(label) for each table."""
        return PLACEHOLDER.sub(lambda m: name_of(m.group(1)), self.sql)

    def __repr__(self):
        return "%s -- params %r%s%s" % (self.sql, self.params, " ordered" * self.ordered, " loose" * self.loose)


def hand_written():
    """Queries over tables of several nodes, some over those of one."""
    found = [Query(*q) if isinstance(q, tuple) else Query(q) for q in PLAIN]
    found += [Query(*q, ordered=True) if isinstance(q, tuple) else Query(q, ordered=True) for q in ORDERED]
    found += [Query(q, loose=True) for q in LOOSE]
    found += [Query(q, fails=True) for q in FAILING]
    for kind in AFFINITY_COLUMNS:  # every affinity against every other, across nodes
        for other in AFFINITY_COLUMNS:
            found.append(Query("SELECT a.id, b.id AS b_id FROM {affa} a JOIN {affb} b ON a.%s = b.%s" % (kind, other)))
            found.append(Query("SELECT c.id, a.id AS a_id FROM {affc} c LEFT JOIN {affa} a ON a.%s = c.%s "
                               "WHERE c.id < 25" % (other, kind)))
    for column in ["d." + c for c in ("f", "s", "a", "d", "c", "\"double\"", "dt")] + ["s.a", "s.t"]:
        table = "{declared} d" if column[0] == "d" else "{strictly} s"
        for other in ("t", "x", "n"):
            found.append(Query("SELECT a.id, %s.id AS o FROM {affa} a, %s WHERE a.%s = %s" % (
                column[0], table, other, column)))
    return found


AFFINITY_COLUMNS = ("i", "t", "r", "n", "b", "x", "tc")

PLAIN = [
    # joins of two and three nodes
    "SELECT p.name, o.item FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT people.name, orders.item FROM {people} AS people, {orders} AS orders WHERE orders.person = people.id "
    "AND people.id < 9",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON o.person = p.id",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON o.person = p.id AND o.qty > 2",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON o.person = p.id WHERE o.id IS NULL",
    "SELECT p.id, o.id AS oid FROM {people} p RIGHT JOIN {orders} o ON o.person = p.id",
    "SELECT p.id, o.id AS oid FROM {people} p FULL JOIN {orders} o ON o.person = p.id",
    "SELECT p.id, o.id AS oid FROM {people} p FULL OUTER JOIN {orders} o ON o.person = p.id AND o.amount > 50",
    "SELECT a.id, b.id AS b_id FROM {twin0} a CROSS JOIN {twin1} b",
    "SELECT a.id, b.id AS b_id, c.id AS c_id FROM {twin0} a CROSS JOIN {twin1} b CROSS JOIN {twin2} c WHERE a.v = "
    "c.v",
    "SELECT * FROM {twin0} a JOIN {twin1} b USING (id)",
    "SELECT * FROM {twin0} a JOIN {twin1} b USING (id) JOIN {twin2} c USING (id)",
    "SELECT * FROM {twin0} a LEFT JOIN {twin1} b USING (id, v)",
    "SELECT * FROM {twin0} a FULL JOIN {twin1} b USING (v)",
    "SELECT id, v FROM {twin0} a FULL JOIN {twin1} b USING (id, v) FULL JOIN {twin2} c USING (id, v)",
    "SELECT * FROM {twin0} a NATURAL JOIN {twin1} b",
    "SELECT * FROM {twin1} a NATURAL JOIN {twin2} b",
    "SELECT * FROM {twin0} a NATURAL LEFT JOIN {twin2} b",
    "SELECT * FROM {twin0} a NATURAL FULL JOIN {twin2} b",
    "SELECT * FROM {items} i NATURAL JOIN {orders} o",
    "SELECT p.name, o.item, t.weight FROM {people} p JOIN {orders} o ON o.person = p.id JOIN {tags} t ON t.tag = "
    "o.item",
    "SELECT p.name, o.item, t.weight FROM {people} p JOIN {orders} o ON o.person = p.id LEFT JOIN {tags} t ON t.tag "
    "= o.item",
    "SELECT p.name, o.item, t.weight FROM {people} p LEFT JOIN {orders} o ON o.person = p.id JOIN {tags} t ON "
    "o.item = t.tag",
    "SELECT p.name, o.item, i.\"select\" FROM {people} p JOIN {orders} o ON o.person = p.id JOIN {order items} i ON "
    "i.order_id = o.id",
    "SELECT p.name, t.tag FROM {people} p JOIN {tags} t ON p.name = t.tag",
    "SELECT p.name, t.tag FROM {people} p JOIN {tags} t ON t.tag = p.name",
    "SELECT o.item, t.tag FROM {orders} o JOIN {tags} t ON o.item = t.tag",
    "SELECT o.item, t.tag FROM {orders} o JOIN {tags} t ON o.item = t.tag COLLATE BINARY",
    "SELECT o.item, t.tag FROM {orders} o JOIN {tags} t ON t.tag = o.item COLLATE RTRIM",
    "SELECT p.name, t.padded FROM {people} p JOIN {tags} t ON t.padded = p.name",
    "SELECT p.name, t.padded FROM {people} p JOIN {tags} t ON p.name = t.padded",
    "SELECT g.id, o.id AS oid FROM {generated} g JOIN {people} p ON g.g = p.id JOIN {orders} o ON o.id = p.id",
    "SELECT * FROM {generated} g, {people} p WHERE g.h = upper(p.name) OR g.a = p.id",
    "SELECT b.id, a.id AS aid FROM {big} b JOIN {affa} a ON b.id = a.x",
    "SELECT b.id, c.id AS cid FROM {big} b JOIN {affc} c ON b.approx = c.n",
    "SELECT b.id, c.id AS cid FROM {big} b JOIN {affc} c ON b.id = c.r",
    "SELECT b.u, c.id AS cid FROM {big} b LEFT JOIN {affc} c ON b.u = c.t",
    "SELECT p.id, e.v FROM {people} p LEFT JOIN {empty_c} e ON e.id = p.id",
    "SELECT p.id, e.t FROM {people} p JOIN {empty_b} e ON e.id = p.id",
    "SELECT e.id, e.t, p.id AS pid FROM {empty_b} e RIGHT JOIN {people} p ON e.id = p.id",
    "SELECT count(*) AS n FROM {empty_b} b, {empty_c} c",
    "SELECT d.k, o.person, o.id FROM {dup} d JOIN {orders} o ON o.person = d.k",
    "SELECT d.k, p.id FROM {people} p JOIN {dup} d ON d.k = p.boss",
    "SELECT a.k, b.k AS bk FROM {dup} a JOIN {dup} b ON a.k = b.k AND a.w < b.w JOIN {people} p ON p.id = a.k",
    "SELECT c.name, b.name AS boss FROM {people} c LEFT JOIN {people} b ON b.id = c.boss JOIN {ids} i ON i.v = c.id",
    "SELECT o.odd, p.id FROM (SELECT oid + 0 AS odd FROM {odd}) o JOIN {people} p ON p.id = o.odd",
    "SELECT o.rowid, o.oid, o._rowid_, p.id FROM {odd} o JOIN {people} p ON p.id = o.oid",
    "SELECT v.id, v.twice, p.name FROM {v_orders} v JOIN {people} p ON p.id = v.person",
    "SELECT i.\"the \"\"note\"\"\", i.\"value 100%\", p.id FROM {order items} AS i, {people} p WHERE p.id = "
    "i.\"select\"",
    "SELECT i.\"select\", t.tag FROM {order items} i JOIN {tags} t ON 'note ' || t.tag = i.\"the \"\"note\"\"\"",
    # conditions
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id + 1",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person + 1 = p.id * 2",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person > p.id AND o.qty = 4 AND p.id > 38",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person BETWEEN p.id AND p.id + 1 WHERE p.id IN "
    "(3, 5, 7)",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON p.id BETWEEN o.person - 1 AND o.qty",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person IS p.boss",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person IS NOT DISTINCT FROM p.boss WHERE o.id < "
    "60",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person IS DISTINCT FROM p.boss WHERE o.id < 5",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id OR o.id = p.boss",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON (o.person, o.qty) = (p.id, p.boss)",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id AND o.item LIKE p.city",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON CASE WHEN p.id % 2 THEN o.person ELSE o.qty END = "
    "p.id",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = CAST(p.id AS TEXT)",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id || ''",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.item = p.id",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON +o.person = +p.id",
    "SELECT p.id, o.id AS oid FROM {people} p NOT INDEXED JOIN {orders} o NOT INDEXED ON o.person = p.id",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id AND o.person IN (1, 2, 3, NULL)",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id AND o.person NOT IN (1, 2, 3)",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.day LIKE '2024-0_-1%'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.day GLOB '2024-0[1-3]*'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item LIKE '1%%' ESCAPE '%'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item LIKE '%A\\_B' ESCAPE "
    "'\\'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item LIKE 'HONEY'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item GLOB 'h*' OR o.item "
    "IS NULL",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE lower(o.item) = 'honey'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.amount >= 1e308 OR "
    "o.amount <= -0.0",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.id > 9223372036854775806",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.id > '11x'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.id < '11'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.id < 11.5 AND o.id > x'00'",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item > 5 AND o.day < 'x'",
    "SELECT p.id, o.id AS oid FROM {people} p, {orders} o WHERE p.id = 3 AND o.id = 7",
    "SELECT p.id, o.id AS oid FROM {people} p, {orders} o WHERE p.id = 3 AND o.id = 7 AND 0",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON NULL",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON 0 WHERE p.id < 4",
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.qty = ? AND p.id < ?",
     [4, 30]),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.qty = ?2 AND p.id < ?1",
     [30, 4]),
    ("SELECT p.id, o.id AS oid, :w AS w FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item = $w OR "
     "p.name = @n", {"w": "honey", "n": "ANNA"}),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.item = ?", [b"honey"]),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.qty = ?", ["4"]),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.qty = ?", [None]),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id WHERE o.qty IS ?", [None]),
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id AND o.qty IN (?, ?, ?)",
     [1, "2", 3.0]),
    # subqueries
    "SELECT name FROM {people} WHERE id IN (SELECT person FROM {orders})",
    "SELECT name FROM {people} WHERE id NOT IN (SELECT person FROM {orders} WHERE person IS NOT NULL)",
    "SELECT name FROM {people} WHERE id NOT IN (SELECT person FROM {orders})",
    "SELECT id FROM {people} WHERE name IN (SELECT tag FROM {tags})",
    "SELECT id FROM {people} WHERE name NOT IN (SELECT padded FROM {tags})",
    "SELECT id FROM {people} WHERE name COLLATE RTRIM IN (SELECT padded FROM {tags})",
    "SELECT id FROM {orders} WHERE item IN (SELECT tag FROM {tags}) AND person IN (SELECT id FROM {people} WHERE id "
    "< 20)",
    "SELECT id FROM {people} WHERE id IN {ids}",
    "SELECT id FROM {people} WHERE id NOT IN {ids}",
    "SELECT id FROM {people} WHERE name IN {words}",
    "SELECT id FROM {people} WHERE name NOT IN {words}",
    "SELECT id FROM {people} WHERE id IN {ids} AND id IN (SELECT qty FROM {orders})",
    "SELECT id FROM {people} WHERE (id, boss) IN (SELECT person, qty FROM {orders})",
    "SELECT id FROM {people} p WHERE EXISTS (SELECT 1 FROM {orders} o WHERE o.person = p.id)",
    "SELECT id FROM {people} p WHERE NOT EXISTS (SELECT 1 FROM {orders} o WHERE o.person = p.id AND o.qty > 3)",
    "SELECT id FROM {people} p WHERE EXISTS (SELECT 1 FROM {orders} o JOIN {tags} t ON t.tag = o.item WHERE "
    "o.person = p.id)",
    "SELECT id FROM {people} p WHERE EXISTS (SELECT 1 FROM {empty_c})",
    "SELECT id, (SELECT count(*) FROM {orders} o WHERE o.person = p.id) AS n FROM {people} p",
    "SELECT id, (SELECT max(amount) FROM {orders} o WHERE o.person = p.id AND o.qty < p.id) AS n FROM {people} p",
    "SELECT id, (SELECT item FROM {orders} o WHERE o.person = p.id ORDER BY o.id DESC LIMIT 1) AS newest FROM "
    "{people} p",
    "SELECT id, (SELECT item FROM {orders} o WHERE o.person = p.id ORDER BY o.id LIMIT 1 OFFSET 1) AS second FROM "
    "{people} p",
    "SELECT id, (SELECT count(*) FROM {tags} t WHERE t.tag = p.name) AS n, (SELECT sum(qty) FROM {orders}) AS s "
    "FROM {people} p",
    "SELECT (SELECT max(id) FROM {orders}) AS a, (SELECT min(tag) FROM {tags}) AS b, (SELECT count(*) FROM "
    "{people}) AS c",
    "SELECT id FROM {people} WHERE id > (SELECT avg(id) FROM {orders}) / 2 AND score > (SELECT min(w) FROM {dup})",
    "SELECT p.id, s.n FROM {people} p JOIN (SELECT person, count(*) AS n FROM {orders} GROUP BY person) s ON "
    "s.person = p.id",
    "SELECT p.id, s.n FROM {people} p LEFT JOIN (SELECT person, sum(amount) AS n FROM {orders} GROUP BY person "
    "HAVING n > 50) s ON s.person = p.id",
    "SELECT x.id, y.v FROM (SELECT id, city FROM {people} WHERE city > '') x JOIN (SELECT DISTINCT k, v FROM {dup}) "
    "y ON y.k = x.id",
    "SELECT * FROM (SELECT id FROM {people} UNION ALL SELECT id FROM {orders} UNION ALL SELECT k FROM {dup}) WHERE "
    "id BETWEEN 3 AND 5",
    "SELECT p.id FROM {people} p, (SELECT max(id) AS m FROM {orders}) o WHERE p.id * 3 = o.m",
    "SELECT id, CASE WHEN id IN (SELECT v FROM {ids}) THEN 'fib' WHEN EXISTS (SELECT 1 FROM {orders} o WHERE "
    "o.person = people.id) THEN 'buys' ELSE name END AS what FROM {people} AS people",
    "SELECT o.id FROM {orders} o WHERE o.qty = (SELECT max(q.qty) FROM {orders} q WHERE q.person = o.person) AND "
    "o.person IN (SELECT p.id FROM {people} p WHERE p.boss = (SELECT min(k) FROM {dup} WHERE k > 0))",
    # common table expressions
    "WITH o AS (SELECT * FROM {orders} WHERE qty > 3) SELECT p.id, o.id AS oid FROM {people} p JOIN o ON o.person = "
    "p.id",
    "WITH o AS MATERIALIZED (SELECT * FROM {orders} WHERE qty > 3) SELECT p.id, o.id AS oid FROM {people} p JOIN o "
    "ON o.person = p.id",
    "WITH o AS NOT MATERIALIZED (SELECT * FROM {orders}) SELECT count(*) AS n FROM o a, o b, {twin2} t WHERE a.id = "
    "b.person AND t.id = a.qty",
    "WITH a AS (SELECT id FROM {people}), b AS (SELECT person FROM {orders}), c AS (SELECT id FROM a INTERSECT "
    "SELECT person FROM b) SELECT c.id, d.v FROM c LEFT JOIN {dup} d ON d.k = c.id",
    "WITH RECURSIVE up(id, depth) AS (SELECT 40, 0 UNION ALL SELECT p.boss, depth + 1 FROM up JOIN {people} p ON "
    "p.id = up.id WHERE p.boss IS NOT NULL) SELECT up.id, depth, (SELECT count(*) FROM {orders} o WHERE o.person = "
    "up.id) AS n FROM up",
    "WITH RECURSIVE reach(n) AS (SELECT 2 UNION SELECT e.dst FROM reach r JOIN {edges} e ON e.src = r.n) SELECT n "
    "FROM reach",
    "WITH RECURSIVE reach(n) AS (VALUES (3) UNION SELECT e.dst FROM {edges} e, reach r WHERE e.src = r.n) SELECT "
    "r.n, p.name FROM reach r LEFT JOIN {people} p ON p.id = r.n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT n.i, o.id FROM n LEFT JOIN "
    "{orders} o ON o.person = n.i LEFT JOIN {tags} t ON t.weight = n.i",
    # compound
    "SELECT id FROM {people} UNION SELECT person FROM {orders}",
    "SELECT id FROM {people} UNION ALL SELECT person FROM {orders}",
    "SELECT id FROM {people} INTERSECT SELECT person FROM {orders}",
    "SELECT id FROM {people} EXCEPT SELECT person FROM {orders}",
    "SELECT person FROM {orders} EXCEPT SELECT id FROM {people} EXCEPT SELECT v FROM {ids}",
    "SELECT item FROM {orders} UNION ALL SELECT v FROM {dup} UNION ALL SELECT NULL UNION ALL SELECT city FROM "
    "{people}",
    "SELECT id, v FROM {twin0} UNION SELECT id, v FROM {twin1} EXCEPT SELECT id, v FROM {twin2}",
    "SELECT * FROM {empty_b} UNION ALL SELECT id, name FROM {people} WHERE id < 3",
    # aggregates
    "SELECT p.city, count(*) AS n, sum(o.amount) AS s FROM {people} p JOIN {orders} o ON o.person = p.id GROUP BY "
    "p.city",
    "SELECT p.id, count(o.id) AS n, total(o.qty) AS t, avg(o.amount) AS a FROM {people} p LEFT JOIN {orders} o ON "
    "o.person = p.id GROUP BY p.id",
    "SELECT p.city, o.qty, count(*) AS n FROM {people} p JOIN {orders} o ON o.person = p.id GROUP BY 1, 2 HAVING n "
    "> 1 AND max(o.id) > 20",
    "SELECT count(*) AS n FROM {people} p, {orders} o",
    "SELECT count(*) AS n, count(DISTINCT o.person) AS d, min(o.day) AS a, max(o.day) AS z FROM {people} p JOIN "
    "{orders} o ON o.person = p.id",
    "SELECT count(*) FILTER (WHERE o.qty > 2) AS n, sum(o.qty) FILTER (WHERE p.city = 'Bern') AS s FROM {people} p "
    "JOIN {orders} o ON o.person = p.id",
    "SELECT sum(o.qty) AS s, min(o.qty) AS m FROM {people} p JOIN {orders} o ON o.person = p.id WHERE p.id > 1000",
    "SELECT p.id, sum(o.qty) AS s FROM {people} p JOIN {orders} o ON o.person = p.id WHERE p.id > 1000 GROUP BY p.id",
    "SELECT DISTINCT p.city, o.item FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT DISTINCT o.qty FROM {people} p LEFT JOIN {orders} o ON o.person = p.id",
    "SELECT t.weight, count(DISTINCT o.person) AS n FROM {tags} t LEFT JOIN {orders} o ON t.tag = o.item GROUP BY "
    "t.weight",
    # windows
    "SELECT p.id, o.id AS oid, row_number() OVER (PARTITION BY p.id ORDER BY o.id) AS n FROM {people} p JOIN "
    "{orders} o ON o.person = p.id",
    "SELECT p.id, o.id AS oid, sum(o.qty) OVER (ORDER BY p.id, o.id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s "
    "FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT o.id, rank() OVER w AS r, dense_rank() OVER w AS d, count(*) OVER (PARTITION BY t.weight) AS n FROM "
    "{orders} o JOIN {tags} t ON t.tag = o.item WINDOW w AS (PARTITION BY t.tag ORDER BY o.qty)",
    "SELECT p.id, lag(o.item) OVER (ORDER BY o.id) AS before, first_value(o.item) OVER (PARTITION BY p.city ORDER "
    "BY o.id) AS f FROM {people} p JOIN {orders} o ON o.person = p.id",
    # bytes that are not UTF-8, and whole rows
    "SELECT s.id, hex(s.t) AS h, typeof(s.a) AS t, p.id AS pid FROM {strictly} s JOIN {people} p ON p.id = s.id",
    "SELECT hex(s.t) AS h, length(s.t) AS n, quote(s.a) AS q FROM {strictly} s LEFT JOIN {tags} t ON t.tag = s.t",
    "SELECT s.*, t.* FROM {strictly} s JOIN {twin2} t ON t.id = s.id",
    "SELECT * FROM {affa} a JOIN {affb} b ON a.id = b.id JOIN {affc} c ON c.id = a.id",
    "SELECT * FROM {declared} d JOIN {strictly} s ON s.id = d.id",
    "SELECT quote(x) AS q, typeof(x) AS t, x FROM (SELECT x FROM {affa} UNION ALL SELECT x FROM {affb} UNION ALL "
    "SELECT a FROM {strictly})",
    # what stands beside
    "SELECT p.id, 'a@b:1@c' AS lit, o.id AS \"127.0.0.1:1@t\" /* h:1@t */ FROM {people} p JOIN {orders} o ON "
    "o.person = p.id -- x:1@y",
    "VALUES (1, (SELECT count(*) FROM {orders})), (2, (SELECT count(*) FROM {tags}))",
    "SELECT p.id IN (SELECT person FROM {orders}) AS a, p.name LIKE (SELECT max(tag) FROM {tags}) AS b FROM "
    "{people} p",
]

ORDERED = [
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY p.id, o.id",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY o.id DESC LIMIT 10",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY o.id LIMIT 10 OFFSET 5",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON o.person = p.id ORDER BY o.amount NULLS LAST, "
    "p.id, o.id LIMIT 30",
    "SELECT p.id, o.id AS oid FROM {people} p LEFT JOIN {orders} o ON o.person = p.id ORDER BY o.item COLLATE "
    "NOCASE DESC, p.id, o.id",
    "SELECT t.tag, d.w, p.id FROM {tags} t JOIN {people} p ON p.id = t.weight JOIN (SELECT k, max(w) AS w FROM "
    "{dup} GROUP BY k) d ON d.k = p.id ORDER BY t.tag",
    "SELECT t.tag, p.id FROM {tags} t LEFT JOIN {people} p ON p.name = t.tag ORDER BY t.tag, p.id",
    "SELECT t.padded, t.tag, p.id FROM {tags} t LEFT JOIN {people} p ON p.id = t.weight ORDER BY t.padded, t.tag",
    "SELECT a.id, b.x FROM {affa} a JOIN {affb} b ON b.id = a.id ORDER BY b.x, a.id",
    "SELECT a.id, b.tc FROM {affa} a JOIN {affb} b ON b.id = a.id ORDER BY b.tc DESC, a.id LIMIT 20",
    "SELECT b.id, t.id AS tid FROM {big} b, {twin2} t WHERE t.id < 3 ORDER BY b.id DESC, t.id",
    "SELECT b.id, t.id AS tid FROM {big} b, {twin2} t WHERE b.id >= -9007199254740993 AND t.v = 1 ORDER BY "
    "b.approx, b.id, t.id",
    "SELECT id FROM {people} UNION SELECT person FROM {orders} ORDER BY 1 DESC LIMIT 7",
    "SELECT id FROM {people} UNION ALL SELECT id FROM {orders} ORDER BY 1 LIMIT 10 OFFSET 3",
    ("SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY o.id LIMIT ? OFFSET ?",
     [4, 2]),
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY o.id LIMIT 0",
    "SELECT p.id, o.id AS oid FROM {people} p JOIN {orders} o ON o.person = p.id ORDER BY o.id LIMIT -1 OFFSET 70",
    "SELECT * FROM (SELECT id, item FROM {orders} ORDER BY id DESC LIMIT 5) o JOIN {twin2} t ON t.id = o.id % 5 + 1 "
    "ORDER BY o.id, t.id",
    "SELECT i.order_id, i.\"select\", p.id FROM {order items} i JOIN {people} p ON p.id = i.order_id ORDER BY "
    "i.order_id DESC, i.\"select\"",
    "SELECT o.id, o.item, group_concat(t.tag, ',') OVER (ORDER BY o.id ROWS 2 PRECEDING) AS g FROM {orders} o JOIN "
    "{tags} t ON t.tag = o.item ORDER BY o.id",
]

LOOSE = [
    "SELECT DISTINCT p.name, t.tag FROM {people} p LEFT JOIN {tags} t ON t.tag = p.name",
    "SELECT p.name, count(*) AS n FROM {people} p JOIN {orders} o ON o.person = p.id GROUP BY p.name",
    "SELECT t.padded, count(*) AS n FROM {tags} t LEFT JOIN {people} p ON p.id = t.weight GROUP BY t.padded",
    "SELECT name FROM {people} UNION SELECT tag FROM {tags}",
    "SELECT tag FROM {tags} UNION SELECT name FROM {people}",
    "SELECT tag FROM {tags} INTERSECT SELECT item FROM {orders}",
    "SELECT item FROM {orders} INTERSECT SELECT tag FROM {tags}",
    "SELECT tag FROM {tags} EXCEPT SELECT name FROM {people}",
    "SELECT padded FROM {tags} UNION SELECT name FROM {people}",
    "SELECT x FROM {affa} UNION SELECT i FROM {affb} UNION SELECT r FROM {affc}",
    "SELECT x FROM {affa} EXCEPT SELECT t FROM {affb}",
    "SELECT r FROM {affa} INTERSECT SELECT n FROM {affc}",
    "SELECT a.x, count(*) AS n, count(DISTINCT b.x) AS d, min(b.x) AS lo, max(b.x) AS hi FROM {affa} a JOIN {affb} "
    "b ON a.x < b.x GROUP BY a.x",
    "SELECT min(a.n) AS a, max(b.tc) AS b, min(c.r) AS c, max(c.b) AS d FROM {affa} a, {affb} b, {affc} c WHERE "
    "a.id = b.id AND c.id = b.id",
]

FAILING = [
    "SELECT p.nonsense FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT o.nonsense FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT id FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT p.id FROM {people} p JOIN {orders} o ON o.person = p.id JOIN",
    "SELECT p.id, abs(b.u) FROM {people} p, {big} b",
    "SELECT sum(b.id) FROM {big} b, {people} p WHERE b.id > 9223372036854775800",
    "SELECT p.id, nosuch(o.id) FROM {people} p JOIN {orders} o ON o.person = p.id",
    "SELECT p.id FROM {people} p JOIN {orders} o USING (nonsense)",
    "SELECT id FROM {people} UNION SELECT id, item FROM {orders}",
    "SELECT p.id FROM {people} p WHERE (id, name) IN (SELECT id FROM {orders})",
    "SELECT p.id FROM {people} p, {orders} o WHERE o.item LIKE 'a' ESCAPE 'two'",
    "SELECT p.id FROM {people} p WHERE id IN {dup}",
]
