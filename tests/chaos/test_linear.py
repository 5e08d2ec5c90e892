#!/usr/bin/env python3
"""The checkers themselves: histories known to be good pass, histories known to be bad do not.

Besides the classical cases, thousands of small random histories are judged by trying every order, and the search must
agree with that in each.
"""
import itertools
import os
import random
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from linear import FOREVER, Operation, check, check_keys, settle_unknown, step  # noqa: E402


def read(client, start, end, seen):
    return Operation(client, "read", None, seen, start, end)


def write(client, start, end, value):
    return Operation(client, "write", value, None, start, end)


def cas(client, start, end, expected, new, seen):
    return Operation(client, "cas", (expected, new), seen, start, end)


def by_trying(operations, initial):
    """The definition, word for word: some order of all that were answered and any of the others is legal."""
    unknown = [op for op in operations if op.end == FOREVER]
    known = [op for op in operations if op.end != FOREVER]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            for order in itertools.permutations(known + list(some)):
                if respects_time(order) and legal(order, initial):
                    return True
    return False


def respects_time(order):
    return all(not later.end < earlier.start for earlier, later in itertools.combinations(order, 2))


def legal(order, state):
    for op in order:
        fits, state = step(state, op)
        if not fits:
            return False
    return True


class Register(unittest.TestCase):
    def good(self, *operations, initial=0):
        self.assertTrue(check(operations, initial).linearizable)
        self.assertTrue(check(settle_unknown(operations, initial), initial).linearizable)

    def bad(self, *operations, initial=0):
        for ops in (operations, settle_unknown(operations, initial)):
            verdict = check(ops, initial)
            self.assertFalse(verdict.linearizable)
            self.assertTrue(verdict.decided)
            self.assertIsNotNone(verdict.stuck)

    def test_nothing_and_one(self):
        self.good()
        self.good(read(1, 0, 1, 0))
        self.bad(read(1, 0, 1, 7))

    def test_sequential(self):
        self.good(write(1, 0, 1, 5), read(2, 2, 3, 5), write(2, 4, 5, 6), read(1, 6, 7, 6))

    def test_stale_read_is_rejected(self):
        self.bad(write(1, 0, 1, 5), read(2, 2, 3, 0))
        self.bad(write(1, 0, 1, 5), write(1, 2, 3, 6), read(2, 4, 5, 5))

    def test_concurrent_read_may_see_either(self):
        self.good(write(1, 0, 10, 5), read(2, 1, 2, 0), read(2, 3, 4, 5))
        self.bad(write(1, 0, 10, 5), read(2, 1, 2, 5), read(2, 3, 4, 0))

    def test_two_readers_must_agree_on_the_order(self):
        self.bad(write(1, 0, 20, 5), write(2, 0, 20, 6), read(3, 1, 2, 5), read(3, 3, 4, 6), read(4, 5, 6, 5))

    def test_lost_update_is_rejected(self):
        """Both increments of the same value cannot have taken place."""
        self.bad(cas(1, 0, 5, 0, 1, 1), cas(2, 0, 5, 0, 2, 2))
        self.bad(write(1, 0, 1, 5), cas(1, 2, 3, 5, 6, 6), read(2, 4, 5, 5))

    def test_cas_must_tell_the_truth(self):
        self.good(cas(1, 0, 1, 0, 1, 1), cas(2, 2, 3, 0, 2, 1))
        self.bad(cas(1, 0, 1, 0, 1, 1), cas(2, 2, 3, 1, 2, 1))   # said no where it had to take place
        self.bad(cas(1, 0, 1, 7, 1, 1))                          # took place where it could not
        self.bad(cas(1, 0, 1, 0, 1, 1), cas(2, 2, 3, 9, 2, 0))   # said no, but saw a value long gone

    def test_value_out_of_nowhere_is_rejected(self):
        self.bad(write(1, 0, 1, 5), read(2, 2, 3, 99))

    def test_write_refused_for_certain_must_not_appear(self):
        """It is not in the history, so a read of its value has no explanation."""
        self.bad(read(2, 2, 3, 77))

    def test_unknown_write_may_happen_or_not(self):
        self.good(write(1, 0, FOREVER, 5), read(2, 10, 11, 0))
        self.good(write(1, 0, FOREVER, 5), read(2, 10, 11, 5))
        self.good(write(1, 0, FOREVER, 5), read(2, 10, 11, 0), read(2, 12, 13, 5))

    def test_unknown_write_happens_once(self):
        self.bad(write(1, 0, FOREVER, 5), read(2, 10, 11, 5), write(2, 12, 13, 6), read(2, 14, 15, 5))
        self.bad(write(1, 0, FOREVER, 5), read(2, 10, 11, 5), read(2, 12, 13, 0))

    def test_unknown_write_does_not_happen_before_its_call(self):
        self.bad(read(2, 0, 1, 5), write(1, 2, FOREVER, 5))

    def test_unknown_cas(self):
        self.good(cas(1, 0, FOREVER, 0, 5, None), read(2, 1, 2, 5))
        self.good(cas(1, 0, FOREVER, 9, 5, None), read(2, 1, 2, 0))
        self.bad(cas(1, 0, FOREVER, 9, 5, None), read(2, 1, 2, 5))
        self.good(write(1, 0, FOREVER, 9), cas(1, 1, FOREVER, 9, 5, None), read(2, 2, 3, 5))
        self.bad(write(1, 4, FOREVER, 9), cas(1, 1, FOREVER, 9, 5, None), read(2, 2, 3, 5))

    def test_many_unknown_do_not_drown_the_search(self):
        ops = [write(100 + i, i, FOREVER, 1000 + i) for i in range(200)]
        now = 1000
        for i in range(2000):
            ops.append(write(1, now, now + 1, i + 5000))
            ops.append(read(2, now + 2, now + 3, i + 5000))
            now += 4
        verdict = check(settle_unknown(ops, 0), 0)
        self.assertTrue(verdict.linearizable)
        ops.append(read(2, now, now + 1, 5000))
        verdict = check(settle_unknown(ops, 0), 0, steps_max=1_000_000)
        self.assertTrue(verdict.decided and not verdict.linearizable)

    def test_search_that_is_too_long_is_not_a_pass(self):
        ops = [write(i, 0, 100, i + 1) for i in range(14)] + [read(99, 0, 100, 77)]
        verdict = check(ops, 0, steps_max=1000)
        self.assertFalse(verdict.decided or verdict.linearizable)

    def test_keys_are_judged_apart(self):
        self.assertEqual({}, check_keys({"a": [write(1, 0, 1, 5)], "b": [read(1, 2, 3, 0)]}, 0))
        bad = check_keys({"a": [write(1, 0, 1, 5)], "b": [read(1, 2, 3, 5)]}, 0)
        self.assertEqual(["b"], list(bad))


class AgainstTheDefinition(unittest.TestCase):
    def random_history(self, dice, unique):
        ops, values = [], itertools.count(1)
        for i in range(dice.randint(1, 5)):
            start = dice.randint(0, 12)
            end = FOREVER if dice.random() < 0.25 else start + dice.randint(1, 6)
            value = (lambda: next(values)) if unique else (lambda: dice.randint(0, 3))
            kind = dice.choice(("read", "write", "cas"))
            if kind == "write":
                ops.append(write(i, start, end, value()))
            elif kind == "read" and end != FOREVER:
                ops.append(read(i, start, end, dice.randint(0, 4)))
            elif kind == "cas":
                expected, new = dice.randint(0, 4), value()
                seen = None if end == FOREVER else dice.choice((new, dice.randint(0, 4)))
                ops.append(cas(i, start, end, expected, new, seen))
        return ops

    def agree(self, seed, count, unique):
        dice = random.Random(seed)
        verdicts = {True: 0, False: 0}
        for _ in range(count):
            ops = self.random_history(dice, unique)
            truth = by_trying(ops, 0)
            verdicts[truth] += 1
            self.assertEqual(truth, check(ops, 0).linearizable, ops)
            self.assertEqual(truth, check(settle_unknown(ops, 0), 0).linearizable, ops)
        self.assertGreater(min(verdicts.values()), count // 20, "random histories of one kind only")

    def test_unique_values(self):
        self.agree(1, 1200, True)

    def test_repeated_values(self):
        self.agree(2, 1200, False)

    def test_long_random_run_of_a_true_register_passes_and_a_touched_one_does_not(self):
        dice = random.Random(3)
        state, now, ops, value = 0, 0.0, [], 0
        for i in range(5000):
            point = now = now + dice.random()
            start, end = point - 2 * dice.random(), point + 2 * dice.random()
            kind = dice.choice(("read", "write", "cas"))
            value += 1
            if kind == "read":
                ops.append(read(i, start, end, state))
                continue
            op = write(i, start, end, value) if kind == "write" else cas(
                i, start, end, state if dice.random() < 0.6 else -1, value, None)
            if dice.random() < 0.03:
                op = op._replace(end=FOREVER)
            _, after = step(state, op._replace(end=FOREVER))
            if dice.random() < 0.02 and op.end == FOREVER:
                after = state  # it never arrived
            if kind == "cas" and op.end != FOREVER:
                op = op._replace(seen=after)
            state = after
            ops.append(op)
        self.assertTrue(check(settle_unknown(ops, 0), 0).linearizable)
        reads = [i for i, op in enumerate(ops) if op.kind == "read"]
        victim = reads[len(reads) // 2]
        early = next(op for op in ops if op.kind == "write")
        ops[victim] = ops[victim]._replace(seen=early.value)
        verdict = check(settle_unknown(ops, 0), 0)
        self.assertTrue(verdict.decided and not verdict.linearizable)


if __name__ == "__main__":
    unittest.main()
