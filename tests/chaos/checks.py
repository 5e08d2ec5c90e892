"""What a recorded history must satisfy. Each check returns a list of violations in words; none is the only good answer.

Pure: reads [history.Op]. Called by chaos.py and test_checks.py. "Linearizable" operations are writes and reads of mode
"linearizable"; reads of mode "session" and "stale" were answered by whichever node was asked.
"""
import collections

from linear import FOREVER, Operation, check_keys

READS = ("read", "snapshot", "list", "count")


def is_linearizable(op):
    return op.f not in READS or op.mode == "linearizable"


def ordered_in_time(ops, rank, what):
    """rank(op) never falls from an operation to one that was called after its answer had come."""
    bad = []
    by_end = sorted(ops, key=lambda op: op.end)
    highest, ended = None, 0
    for op in sorted(ops, key=lambda op: op.start):
        while ended < len(by_end) and by_end[ended].end < op.start:
            if highest is None or rank(by_end[ended]) > rank(highest):
                highest = by_end[ended]
            ended += 1
        if highest is not None and rank(highest) > rank(op):
            bad.append("%s goes back in time: %r, later %r" % (what, highest, op))
    return bad


def check_lsns(ops):
    """Positions: in real time order for linearizable operations, at least min_lsn for session reads; and whoever reads
    the same thing at the same LSN, on whatever node, reads the same."""
    ok = [op for op in ops if op.outcome == "ok" and op.lsn is not None]
    bad = ordered_in_time([op for op in ok if is_linearizable(op)], lambda op: op.lsn, "the LSN")
    first = {}
    for op in ok:
        if op.min_lsn > op.lsn:
            bad.append("a session read below its min_lsn %d: %r" % (op.min_lsn, op))
        if op.f not in READS or op.f == "count":
            continue
        other = first.setdefault((op.lsn, op.f, op.key), op)
        if other.seen != op.seen:
            bad.append("the same LSN shows two things: %r, %r" % (other, op))
    return bad


def check_errors(ops):
    """Faults excuse no answer that blames the request, and none that is an error with status 200."""
    return ["an answer that no fault excuses: %r" % op for op in ops if op.result.get("wrong")]


def check_register(ops, initial=0):
    by_key, bad = collections.defaultdict(list), []
    for op in ops:
        if op.outcome == "fail" or not is_linearizable(op) or (op.f == "read" and op.outcome != "ok"):
            continue
        end = FOREVER if op.outcome == "info" else op.end
        value = tuple(op.value) if op.f == "cas" else op.value
        by_key[op.key].append(Operation(op.process, op.f, value, op.seen, op.start, end))
    for key, verdict in check_keys(by_key, initial).items():
        bad.append("register %s %s after %d steps; %d operations can be put in order, the last of them %s; then stuck at %s"
                   % (key, "is not linearizable" if verdict.decided else "could not be decided", verdict.steps,
                      len(verdict.order), verdict.order[-3:], verdict.stuck))
    return bad


def once(what, acked, unknown, found):
    """acked: exactly once in found (a Counter); unknown: at most once; nothing else."""
    bad = []
    for element in acked:
        if found[element] != 1:
            bad.append("%s %r was acknowledged and is there %d times" % (what, element, found[element]))
    for element, times in found.items():
        if element in acked:
            continue
        if element not in unknown:
            bad.append("%s %r is there %d times, but was refused for certain or never asked for" % (
                what, element, times))
        elif times > 1:
            bad.append("%s %r of unknown outcome is there %d times" % (what, element, times))
    return bad


def sort_out(ops, f):
    """The values of operations f that were acknowledged, and those of unknown outcome."""
    acked = {op.value for op in ops if op.f == f and op.outcome == "ok"}
    return acked, {op.value for op in ops if op.f == f and op.outcome == "info"} - acked


def check_append(ops, final):
    """final: {key: [elements]} as read when all was over."""
    bad = []
    by_key = collections.defaultdict(list)
    for op in ops:
        by_key[op.key].append(op)
    for key, here in by_key.items():
        elements = final.get(key, [])
        acked, unknown = sort_out(here, "append")
        bad += once("list %s: element" % key, acked, unknown, collections.Counter(elements))
        timed = []
        for op in here:
            if op.outcome != "ok":
                continue
            if op.f == "append":
                timed.append((op, 2 * op.seen))
                if elements[op.seen - 1:op.seen] != [op.value]:
                    bad.append("list %s: %r is not at place %d" % (key, op.value, op.seen))
            elif op.seen != elements[:len(op.seen)]:
                bad.append("list %s: a read is no prefix of what came of it: %r" % (key, op))
            elif is_linearizable(op):
                timed.append((op, 2 * len(op.seen) + 1))
        ranks = {op.n: rank for op, rank in timed}
        bad += ordered_in_time([op for op, _ in timed], lambda op: ranks[op.n], "list %s" % key)
    return bad


def check_insert(ops, final):
    """final: {key: how many rows}. A key is asked again only after a certain refusal."""
    acked, unknown = sort_out(ops, "insert")
    bad = once("row", acked, unknown, collections.Counter(final))
    ends = {op.value: op.end for op in ops if op.f == "insert" and op.outcome == "ok"}
    for op in ops:
        if op.f == "count" and op.outcome == "ok" and is_linearizable(op):
            if op.key in ends and ends[op.key] < op.start and op.seen != 1:
                bad.append("row %r was acknowledged, a later read finds %d of it: %r" % (op.key, op.seen, op))
    return bad


def check_bank(ops, final_balances, final_transfers, opening):
    """final_balances: {account: balance}; final_transfers: [(id, from, to, amount)]; opening: each one's at first."""
    bad = []
    total = opening * len(final_balances)
    for op in ops:
        if op.f == "snapshot" and op.outcome == "ok":
            balances = dict(map(tuple, op.seen))
            if sum(balances.values()) != total or len(balances) != len(final_balances):
                bad.append("the sum is %d, not %d: %r" % (sum(balances.values()), total, op))
            elif min(balances.values()) < 0:
                bad.append("an account is overdrawn: %r" % op)
    transfers = [op for op in ops if op.f == "transfer"]
    acked = {op.value[0] for op in transfers if op.outcome == "ok" and op.seen == 1}
    unknown = {op.value[0] for op in transfers if op.outcome == "info"}
    bad += once("transfer", acked, unknown, collections.Counter(t[0] for t in final_transfers))
    computed = {account: opening for account in final_balances}
    for _, source, target, amount in final_transfers:
        computed[source] -= amount
        computed[target] += amount
    if computed != final_balances:
        bad.append("the balances are not what the transfers make them: %r, %r" % (final_balances, computed))
    return bad
