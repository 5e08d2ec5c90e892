#!/usr/bin/env python3
"""The judgements of recorded histories: each accepts a good history and rejects that history with one lie in it."""
import json
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import checks  # noqa: E402
import history  # noqa: E402
import schedule  # noqa: E402
from history import Op  # noqa: E402


class Made:
    """Histories by hand: each operation takes from t to t + 1."""

    def __init__(self):
        self.ops = []

    def add(self, t, f, outcome="ok", key=None, value=None, mode="linearizable", min_lsn=0, seconds=1.0, **result):
        n = len(self.ops)
        op = Op({"n": n, "p": n, "t": t, "f": f, "k": key, "v": value, "mode": mode, "min_lsn": min_lsn})
        op.completed(dict(result, n=n, e=outcome, t=t + seconds))
        self.ops.append(op)
        return self


class Register(unittest.TestCase):
    def test_good_and_stale(self):
        made = Made().add(0, "write", key=1, value=5).add(2, "read", key=1, v=5).add(
            4, "cas", key=1, value=[5, 6], v=6).add(6, "read", key=1, v=5, mode="stale")
        self.assertEqual([], checks.check_register(made.ops))
        self.assertEqual(1, len(checks.check_register(made.add(8, "read", key=1, v=5).ops)))

    def test_refused_write_must_not_show(self):
        made = Made().add(0, "write", "fail", key=1, value=5).add(2, "read", key=1, v=0)
        self.assertEqual([], checks.check_register(made.ops))
        self.assertEqual(1, len(checks.check_register(made.add(4, "read", key=1, v=5).ops)))

    def test_unknown_write_may_show_later(self):
        made = Made().add(0, "write", "info", key=1, value=5).add(2, "read", key=1, v=0).add(4, "read", key=1, v=5)
        self.assertEqual([], checks.check_register(made.ops))
        self.assertEqual(1, len(checks.check_register(made.add(6, "read", key=1, v=0).ops)))


class Lsn(unittest.TestCase):
    def test_real_time_order(self):
        made = Made().add(0, "write", lsn=5).add(2, "read", lsn=5, v=1).add(4, "read", lsn=3, v=0, mode="stale")
        self.assertEqual([], checks.check_lsns(made.ops))
        self.assertEqual(1, len(checks.check_lsns(made.add(6, "read", lsn=4, v=1).ops)))

    def test_concurrent_operations_may_come_in_any_order(self):
        made = Made().add(0, "write", lsn=5, seconds=3).add(2, "read", lsn=4, v=1, seconds=3)
        self.assertEqual([], checks.check_lsns(made.ops))

    def test_session_read_below_its_lsn(self):
        self.assertEqual([], checks.check_lsns(Made().add(0, "read", mode="session", min_lsn=4, lsn=4).ops))
        self.assertEqual(1, len(checks.check_lsns(Made().add(0, "read", mode="session", min_lsn=5, lsn=4).ops)))

    def test_same_lsn_same_rows(self):
        made = Made().add(0, "snapshot", lsn=5, v=[[1, 2]]).add(0, "snapshot", lsn=5, v=[[1, 2]], mode="stale")
        self.assertEqual([], checks.check_lsns(made.ops))
        made.add(0, "snapshot", lsn=5, v=[[1, 3]], mode="stale")
        self.assertEqual(1, len(checks.check_lsns(made.ops)))


class Append(unittest.TestCase):
    def good(self):
        return Made().add(0, "append", key="a", value=11, v=1).add(2, "append", key="a", value=12, v=2).add(
            3, "append", "info", key="a", value=13).add(3, "append", "fail", key="a", value=14).add(
            5, "list", key="a", v=[11, 12]).add(5, "list", key="a", v=[11], mode="stale")

    def test_good(self):
        self.assertEqual([], checks.check_append(self.good().ops, {"a": [11, 12]}))
        self.assertEqual([], checks.check_append(self.good().ops, {"a": [11, 12, 13]}))

    def test_lost_doubled_invented_reordered(self):
        for final in ([11], [11, 12, 12], [11, 12, 13, 13], [11, 12, 14], [11, 12, 99], [12, 11], []):
            self.assertNotEqual([], checks.check_append(self.good().ops, {"a": final}), final)

    def test_read_that_lacks_what_was_acknowledged(self):
        made = self.good().add(7, "list", key="a", v=[11])
        self.assertEqual(1, len(checks.check_append(made.ops, {"a": [11, 12]})))

    def test_read_that_shows_what_then_vanished(self):
        made = self.good().add(7, "list", key="a", v=[11, 12, 13], mode="stale")
        self.assertEqual([], checks.check_append(made.ops, {"a": [11, 12, 13]}))
        self.assertEqual(1, len(checks.check_append(made.ops, {"a": [11, 12]})))

    def test_order_of_appends_in_real_time(self):
        made = Made().add(0, "append", key="a", value=11, v=2).add(2, "append", key="a", value=12, v=1)
        self.assertEqual(1, len(checks.check_append(made.ops, {"a": [12, 11]})))


class Insert(unittest.TestCase):
    def test_lost_and_doubled(self):
        made = Made().add(0, "insert", value=1).add(0, "insert", "info", value=2).add(0, "insert", "fail", value=3)
        made.add(3, "count", key=1, v=1)
        self.assertEqual([], checks.check_insert(made.ops, {1: 1}))
        self.assertEqual([], checks.check_insert(made.ops, {1: 1, 2: 1}))
        for final in ({}, {1: 2}, {1: 1, 2: 2}, {1: 1, 3: 1}, {1: 1, 9: 1}):
            self.assertNotEqual([], checks.check_insert(made.ops, final), final)
        self.assertNotEqual([], checks.check_insert(made.add(5, "count", key=1, v=0).ops, {1: 1}))

    def test_refused_then_tried_again(self):
        made = Made().add(0, "insert", "fail", value=1).add(2, "insert", value=1)
        self.assertEqual([], checks.check_insert(made.ops, {1: 1}))


class Bank(unittest.TestCase):
    def test_sum_and_ledger(self):
        made = Made().add(0, "transfer", value=(1, 0, 1, 30), v=1).add(2, "transfer", value=(2, 0, 1, 90), v=0).add(
            4, "snapshot", v=[[0, 70], [1, 130]])
        good = ({0: 70, 1: 130}, [(1, 0, 1, 30)], 100)
        self.assertEqual([], checks.check_bank(made.ops, *good))
        self.assertNotEqual([], checks.check_bank(made.ops, {0: 100, 1: 100}, [], 100))
        self.assertNotEqual([], checks.check_bank(made.ops, {0: 40, 1: 160}, [(1, 0, 1, 30)] * 2, 100))
        self.assertNotEqual([], checks.check_bank(made.ops, {0: 70, 1: 131}, [(1, 0, 1, 30)], 100))
        self.assertNotEqual([], checks.check_bank(made.add(6, "snapshot", v=[[0, 70], [1, 100]], mode="stale").ops,
                                                  *good))


class Errors(unittest.TestCase):
    def test_wrong_answers_count(self):
        self.assertEqual([], checks.check_errors(Made().add(0, "read", "fail", err="503 NO_MASTER").ops))
        self.assertEqual(1, len(checks.check_errors(Made().add(0, "read", "fail", wrong="no such table").ops)))


class File(unittest.TestCase):
    def test_written_and_read_back(self):
        with tempfile.NamedTemporaryFile() as f:
            h = history.History(f.name)
            first = h.invoke(1, f="write", k=1, v=5)
            h.invoke(2, f="write", k=1, v=6)
            h.complete(first, "ok", lsn=3)
            h.close()
            a, b = history.load(f.name)
            self.assertEqual(("ok", 3, 5), (a.outcome, a.lsn, a.value))
            self.assertEqual(("info", history.UNKNOWN_END), (b.outcome, b.end))
            self.assertLess(a.start, a.end)
            with open(f.name) as lines:
                self.assertEqual(3, len([json.loads(line) for line in lines]))


class Schedule(unittest.TestCase):
    def test_follows_from_the_seed(self):
        self.assertEqual(schedule.make(7, 60), schedule.make(7, 60))
        self.assertNotEqual(schedule.make(7, 60), schedule.make(8, 60))

    def test_is_in_order_within_its_time_and_has_everything(self):
        faults = [f for seed in range(20) for f in schedule.make(seed, 30)]
        self.assertTrue(all(0 < f.at < 30 for f in faults))
        self.assertEqual({(k[0], k[1]) for k in schedule.KINDS}, {(f.kind, f.target) for f in faults})
        one = schedule.make(3, 30)
        self.assertEqual(sorted(one, key=lambda f: f.at), one)


if __name__ == "__main__":
    unittest.main()
