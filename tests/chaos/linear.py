"""Decides whether a history of operations on single registers is linearizable.

Owns: the model of a register, the search, and what is done beforehand with operations whose outcome nobody knows.
Called by checks.py and test_linear.py. Pure: no clock, no I/O.

The search is Wing and Gong's (1993) with Lowe's memory of configurations already seen (2017): walk the history in
order of time; an operation whose call has come and whose answer fits the state may be the next in the linear order; an
answer that comes before its operation was put in order is a dead end, and the last choice is taken back. A
configuration (which operations are in order, state) that was met before is not entered again.

An operation of unknown outcome has `end` = FOREVER: it may take effect at any time after its call, or never (which is
the same as last of all, when nobody looks any more). One that failed for certain does not belong in the history: that
it had no effect is then what the search demands.

Operations (`kind`, `value`, `seen`):
    "read",  None,    the value read (None: no such row)
    "write", v,       None
    "cas",   (a, b),  the value after it, b when it took place, or None in place of a result when end is FOREVER
"""
import collections

FOREVER = float("inf")

Operation = collections.namedtuple("Operation", "client kind value seen start end")


class Verdict(collections.namedtuple("Verdict", "linearizable decided steps order stuck")):
    """decided: False when the search was given up. order: the longest linear order found, indices into operations.
    stuck: the operation whose answer could not be explained after it, None when linearizable."""


def step(state, op):
    """(whether op may come next in this state, the state after it)."""
    if op.kind == "write":
        return True, op.value
    if op.kind == "read":
        return op.seen == state, state
    expected, new = op.value
    after = new if state == expected else state
    return op.end == FOREVER or op.seen == after, after


def settle_unknown(operations, initial=None):
    """Bounds or drops operations of unknown outcome, where every value comes into being once at most.

    An unknown operation took effect for certain when somebody saw its value, and then before that somebody's answer.
    One whose value nobody saw can be left out: after it would come a write that hides it, as good without. (A compare
    and set that finds another value says which, so nothing depends on values that are not seen.) The verdict is the
    same, the search much shorter. Returns operations unchanged when values repeat.
    """
    writer = {initial: None}
    for i, op in enumerate(operations):
        if op.kind != "read":
            value = op.value if op.kind == "write" else op.value[1]
            if value in writer:
                return list(operations)
            writer[value] = i
    deadline = {}  # index of an unknown operation -> when its value had been seen
    work = []

    def saw(value, when):
        i = writer.get(value)
        if i is not None and operations[i].end == FOREVER and when < deadline.get(i, FOREVER):
            deadline[i] = when
            work.append(i)

    for op in operations:
        if op.end == FOREVER:
            continue
        if op.kind != "write":
            saw(op.seen, op.end)
        if op.kind == "cas" and op.seen == op.value[1]:
            saw(op.value[0], op.end)
    while work:  # an unknown compare and set whose value was seen had found what it expected
        i = work.pop()
        if operations[i].kind == "cas":
            saw(operations[i].value[0], deadline[i])
    settled = []
    for i, op in enumerate(operations):
        if op.end != FOREVER:
            settled.append(op)
        elif i in deadline:
            # Seen before it was called: no order can explain that, and the search shall say so.
            end = max(deadline[i], op.start)
            settled.append(op._replace(end=end, seen=op.value[1] if op.kind == "cas" else None))
    return settled


class Timeline:
    """The calls and answers in order of time, as a doubly linked list from which operations are lifted and put back.

    Entry 2i is the call of operation i, entry 2i+1 its answer; entry 2n is the head.
    """

    def __init__(self, operations):
        n = len(operations)
        # At equal times calls come before answers: operations that touch overlap, which blames nobody wrongly.
        entries = sorted(range(2 * n), key=lambda e: (operations[e // 2].end if e & 1 else operations[e // 2].start,
                                                      e & 1))
        self.head = 2 * n
        self.next = [0] * (2 * n + 1)
        self.previous = [0] * (2 * n + 1)
        last = self.head
        for e in entries:
            self.next[last], self.previous[e] = e, last
            last = e
        self.next[last], self.previous[self.head] = self.head, last

    def lift(self, i):
        for e in (2 * i, 2 * i + 1):
            before, after = self.previous[e], self.next[e]
            self.next[before], self.previous[after] = after, before

    def put_back(self, i):
        for e in (2 * i + 1, 2 * i):
            self.next[self.previous[e]] = self.previous[self.next[e]] = e


def with_member(base, window, index):
    """The set {all below base} + window (bit k: base + k) with index added, in its shortest form."""
    window |= 1 << (index - base)
    if window & 1:
        ones = (~window & (window + 1)).bit_length() - 1
        base, window = base + ones, window >> ones
    return base, window


def check(operations, initial=None, steps_max=20_000_000):
    """A Verdict on the operations of one register, which begins as initial."""
    ops = sorted(operations, key=lambda op: op.start)
    line = Timeline(ops)
    state, base, window = initial, 0, 0
    met = {(0, 0, initial)}
    chosen = []        # (operation, state before, base before, window before)
    longest, stuck = [], None
    steps = 0
    entry = line.next[line.head]
    while entry != line.head:
        steps += 1
        if steps > steps_max:
            return Verdict(False, False, steps, longest, stuck)
        i = entry // 2
        if entry & 1 == 0:
            fits, after = step(state, ops[i])
            if fits:
                grown = with_member(base, window, i)
                if (*grown, after) not in met:
                    met.add((*grown, after))
                    chosen.append((i, state, base, window))
                    state, (base, window) = after, grown
                    line.lift(i)
                    entry = line.next[line.head]
                    continue
            entry = line.next[entry]
            continue
        if len(chosen) >= len(longest):
            longest, stuck = [ops[c[0]] for c in chosen], ops[i]
        if ops[i].end == FOREVER:  # only such are left: they may never have happened
            return Verdict(True, True, steps, [ops[c[0]] for c in chosen], None)
        if not chosen:
            return Verdict(False, True, steps, longest, stuck)
        i, state, base, window = chosen.pop()
        line.put_back(i)
        entry = line.next[2 * i]
    return Verdict(True, True, steps, [ops[c[0]] for c in chosen], None)


def check_keys(by_key, initial=None, steps_max=20_000_000):
    """{key: Verdict} of those keys that are not shown to be linearizable. A history is linearizable when every key's
    part of it is (Herlihy and Wing 1990)."""
    bad = {}
    for key, operations in by_key.items():
        verdict = check(settle_unknown(operations, initial), initial, steps_max)
        if not verdict.linearizable:
            bad[key] = verdict
    return bad
