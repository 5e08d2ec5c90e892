"""What is done to a cluster and when: a list of faults that follows from the seed alone.

Pure. Called by chaos.py, which prints the list; carried out by faults.py. Who is master at a given moment is not the
seed's to say, so "master" and "replica" are looked up when the moment has come.
"""
import collections
import random

Fault = collections.namedtuple("Fault", "at kind target seconds")

# (kind, target, how often, seconds it lasts or None)
KINDS = [
    ("kill", "master", 4, None),
    ("kill", "replica", 3, None),
    ("kill", "nodes", 1, None),                # every node, not the supervisor
    ("kill", "supervisor", 2, (0.0, 2.0)),     # until it is started again
    ("stop", "master", 2, (0.02, 0.25)),       # shorter than the patience of heartbeats
    ("stop", "master", 3, (0.4, 2.5)),
    ("stop", "replica", 2, (0.05, 2.5)),
    ("stop", "replicas", 1, (0.2, 1.5)),       # all of them: no quorum
    ("stop", "supervisor", 1, (0.1, 1.5)),
    ("cut", "links", 4, (0.0, 1.0)),           # connections between nodes, again and again
    ("cut", "control", 1, (0.0, 0.5)),         # those of the supervisor
    ("cut", "clients", 1, None),
    ("switchover", "replica", 3, None),
    ("power", "all", 1, (0.0, 0.5)),           # everything at once, then a start
    ("wipe", "replica", 1, None),              # killed, and its files are gone
    ("disk", "all", 1, (0.3, 1.5)),            # full
]
PAUSES = (0.0, 0.05, 0.2, 0.4, 0.8, 1.5)       # between two faults


def make(seed, seconds, slow=1):
    """[Fault] in order of time within seconds. slow: how many times slower than normal the processes are."""
    dice = random.Random(seed)
    pace = 1 + (slow - 1) * 0.3                # recovering takes longer, but not that much
    faults, now = [], 0.5 * pace
    while True:
        now += dice.choice(PAUSES) * pace
        if dice.random() < 0.12:
            now += 2.0 * pace                  # a time to recover in
        kind, target, _, span = dice.choices(KINDS, [k[2] for k in KINDS])[0]
        length = round(dice.uniform(*span) * (slow if kind in ("stop", "disk") else 1), 3) if span else 0.0
        if now >= seconds:
            return faults
        faults.append(Fault(round(now, 3), kind, target, length))


def describe(faults):
    return ["%8.3f %-10s %-10s %s" % (f.at, f.kind, f.target, "%.3f s" % f.seconds if f.seconds else "")
            for f in faults]
