"""Peers that keep to no rule, on the ports that nodes use among each other: nobody crashes, nobody waits, nothing changes.

Each scenario attacks all three nodes' replication and ack ports, which carry their records here (replication.local), or their
control sockets, and then asks the cluster for what it promises: it writes, every node has the same database, and it survives the loss of its master.
"""
import os
import random
import socket
import struct
import time
import uuid

import sp
from harness import scenario
from load import Load

OVER_TCP = {"replication": {"local": "tcp"}}
SHARED = {"replicas": 2, "settings": OVER_TCP}


def cluster_id(c):
    return bytes.fromhex(c.config["cluster"])


def ports(c):
    """The replication and ack ports of all nodes."""
    return [c.port + offset + node for offset in (100, 200) for node in range(1, c.replica_count + 2)]


def control_sockets(c):
    run = os.path.join(c.data_dir, "run")
    return sorted(os.path.join(run, name) for name in os.listdir(run) if name.endswith(".ctl"))


def in_reach(path):
    """A socket's path may be longer than connect(2) takes: it is reached through its directory."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    return directory, "/proc/self/fd/%d/%s" % (directory, os.path.basename(path))


def restarts(c):
    return {n["id"]: (n["pid"], n["restarts"]) for n in c.status()["nodes"]}


class Unharmed:
    """What the cluster was before an attack, and that it is so afterwards: same processes, same master and term, same rows."""

    def __init__(self, c):
        self.c = c
        c.wait_writable()
        c.wait_all_up()
        c.ok("CREATE TABLE IF NOT EXISTS kept(v); INSERT INTO kept VALUES (1)")
        c.wait_converged()
        self.rows = c.query("SELECT count(*) FROM kept").value
        status = c.status()
        self.place = (status["master"], status["term"], restarts(c))
        self.load = Load(c, writers=2, name="hostile-" + uuid.uuid4().hex)
        self.load.wait_more(20)

    def check(self, same_master=True):
        self.load.wait_more(50) # writes go on
        self.load.stop()
        assert not self.load.errors, self.load.errors
        status = self.c.status()
        place = (status["master"], status["term"], restarts(self.c))
        assert not same_master or place == self.place, "before %s, after %s" % (self.place, place)
        assert place[2] == self.place[2], "processes before %s, after %s" % (self.place[2], place[2])
        assert self.c.query("SELECT count(*) FROM kept").value == self.rows
        self.load.verify()
        self.c.wait_all_up()
        self.c.wait_converged(30)
        self.c.check_integrity()


def attack(peer_of, address, pieces):
    """Sends pieces on a connection of its own until the other side hangs up; then closes."""
    peer = None
    try:
        peer = peer_of(address)
        for piece in pieces:
            if not peer.raw(piece):
                break
    except OSError:
        pass # it may refuse or hang up whenever it likes
    finally:
        if peer is not None:
            peer.close()


@scenario(shared=True)
def garbage_instead_of_a_handshake(c):
    before = Unharmed(c)
    noise = random.Random(1)
    for port in ports(c):
        for shape in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\0SP\0\0\x50", b"\0SP\0\xff\xff\0\0" * 2, b"\0SP\1\0\x50\0\0",
                      noise.randbytes(8), noise.randbytes(5000)):
            attack(lambda p: sp.Peer(p, protocol=None), port, [shape])
    before.check()


@scenario(shared=True)
def garbage_behind_a_right_handshake(c):
    before = Unharmed(c)
    noise = random.Random(2)
    for port in ports(c):
        for length in (0, 1, 3, 24, 36, 100, 70000):
            peer = sp.Peer(port)
            peer.send(noise.randbytes(length))
            assert peer.hung_up(), "port %d keeps who sends %d bytes of noise" % (port, length)
            peer.close()
    before.check()


@scenario(shared=True)
def absurd_lengths_end_the_connection(c):
    before = Unharmed(c)
    for port in ports(c):
        for length in (1 << 63, -1, (1 << 63) - 1, 1 << 40, 1 << 31, (1 << 20) + (1 << 17)):
            peer = sp.Peer(port)
            peer.announce(length)
            assert peer.hung_up(), "port %d waits for %d bytes" % (port, length)
            peer.close()
    before.check()


@scenario(shared=True)
def half_messages_and_silence_block_nobody(c):
    before = Unharmed(c)
    peers = []
    for port in ports(c):
        peers.append(sp.Peer(port, protocol=None))
        for shape in (b"", struct.pack(">Q", 1000), struct.pack(">Q", 1000) + b"GzM1\1\0", b"\0\0\0"):
            peers.append(sp.Peer(port))
            peers[-1].raw(shape)
    before.check()
    for peer in peers:
        peer.close()


def well_formed(cluster, term, address):
    """Messages of every kind that is heard on the replication or ack port, right but for cluster id or term."""
    yield sp.hello(cluster, term, 1 << 60, address)
    yield sp.message(sp.START, cluster, term, sp.u64(1 << 60, 0, 0, 0))
    yield sp.message(sp.RECORDS, cluster, term, sp.u64(1 << 60, 1 << 40, 1 << 40, 1, 0) + sp.text(b"GzR1" + bytes(76)))
    yield sp.message(sp.COMMIT, cluster, term, sp.u64(1 << 60, 1 << 40, 1 << 40))
    yield sp.message(sp.SNAPSHOT_BEGIN, cluster, term, sp.u64(1 << 60, 1, 1 << 40, 0, 0) + struct.pack("<I", 1))
    yield sp.message(sp.POSITION, cluster, term,
                     sp.u64(1, 1 << 40, 1 << 40, 0, 1 << 40) + b"\1" + struct.pack("<I", 1) + sp.u64(1, 1), "node2")
    yield sp.message(sp.ACK, cluster, term, sp.u64(1, 1 << 40, 1 << 40, 0), "node2")
    yield sp.message(sp.ACK, cluster, term, sp.u64(1, 1 << 40, 1 << 40, 0), "nobody")
    yield sp.message(sp.SET_TERM, cluster, term, sender="supervisor")
    yield sp.message(sp.PROMOTE, cluster, term, struct.pack("<QBBHHH", 1, 1, 1, 8081, 8181, 8281), sender="supervisor")


@scenario(shared=True)
def another_cluster_is_refused_whatever_it_says(c):
    before = Unharmed(c)
    stranger = bytes(15) + b"x"
    term = c.status()["term"]
    for port in ports(c):
        for body in well_formed(stranger, term + 1, "127.0.0.1:1"):
            peer = sp.Peer(port)
            peer.send(body)
            assert peer.hung_up(), "port %d keeps a peer of another cluster" % port
            peer.close()
        peer = sp.Peer(port)
        peer.send(sp.message(sp.HELLO, cluster_id(c), term + 1, version=99))
        assert peer.hung_up(), "port %d keeps a peer of another version" % port
        peer.close()
    before.check()


@scenario(shared=True)
def terms_of_the_past_and_of_no_time_are_ignored(c):
    before = Unharmed(c)
    term = c.status()["term"]
    for port in ports(c):
        peer = sp.Peer(port)
        for named in (0, term - 1, term + (1 << 20) + 1, 1 << 40, (1 << 62), (1 << 62) + 1, (1 << 63), (1 << 64) - 1):
            for body in well_formed(cluster_id(c), named, "127.0.0.1:1"):
                assert peer.send(body), "port %d has hung up" % port
        peer.send(b"x") # answered by a hang-up: everything before it was read
        assert peer.hung_up()
        peer.close()
    before.check()


@scenario(shared=True)
def forged_acknowledgements_commit_nothing_that_is_not_there(c):
    before = Unharmed(c)
    term = c.status()["term"]
    master = int(c.master()[len("node"):])
    peer = sp.Peer(c.port + 200 + master)
    now_us = int(time.time() * 1000000)
    for stream in [0, 1, (1 << 64) - 1] + [now_us - i for i in range(50)]:
        for sender in ("node1", "node2", "node3"):
            peer.send(sp.message(sp.ACK, cluster_id(c), term, sp.u64(stream, (1 << 64) - 1, (1 << 64) - 1, 0), sender))
    peer.send(b"x")
    assert peer.hung_up()
    peer.close()
    status = c.node_status("node%d" % master)
    assert status["committed_lsn"] <= status["durable_lsn"] < 1 << 40, status
    before.check()


@scenario(shared=True)
def a_newer_term_that_somebody_made_up_costs_an_election_at_most(c):
    """Whoever knows the cluster's id and reaches its ports can make it elect; it must find back by itself each time."""
    c.wait_writable()
    c.ok("CREATE TABLE IF NOT EXISTS kept(v); INSERT INTO kept VALUES (2)")
    pids = c.pids()
    rows = c.query("SELECT count(*) FROM kept").value
    for jump in (1, 1 << 20):
        term = c.status()["term"]
        for port in ports(c):
            peer = sp.Peer(port)
            for body in well_formed(cluster_id(c), term + jump, "127.0.0.1:1"):
                peer.send(body)
            peer.send(b"x")
            assert peer.hung_up()
            peer.close()
        c.wait_writable(30)
        c.wait_all_up(30)
        assert c.status()["term"] <= term + jump + 64, "terms ran away: %d after %d" % (c.status()["term"], term)
    assert c.pids() == pids, "a process ended"
    assert c.query("SELECT count(*) FROM kept").value == rows
    c.wait_converged(30)


@scenario(shared=True)
def floods_of_connections_keep_nobody_out(c):
    before = Unharmed(c)
    peers = []
    for port in ports(c):
        for _ in range(200):
            try:
                peers.append(sp.Peer(port))
            except OSError:
                pass # sent away at once: as good
    # A replica that lost its connection finds room again, and the master's successor does: the flood is still there.
    c.wait_converged(30)
    before.check()
    c.kill(c.master())
    c.wait_writable(30)
    c.wait_all_up(30)
    c.wait_converged(30)
    for peer in peers:
        peer.close()


@scenario(start=False, timeout_s=90)
def replayed_messages_of_the_stream_change_nothing(ctx):
    """Keeps what a master really says to a replica, and says it again, forwards, backwards and to the other nodes."""
    c = ctx.cluster(replicas=2, settings=OVER_TCP)
    c.start()
    c.ok("CREATE TABLE kept(v)")
    captured = capture(c)
    for i in range(30):
        c.ok("INSERT INTO kept VALUES (?)", [i])
    assert {sp.Head(m).kind for m in captured} >= {sp.HELLO, sp.COMMIT}, [sp.Head(m).kind for m in captured]
    before = Unharmed(c)
    for messages in (captured, captured[::-1]):
        for port in ports(c):
            peer = sp.Peer(port)
            for body in messages:
                assert peer.send(body), "port %d has hung up" % port
            peer.send(b"x")
            assert peer.hung_up()
            peer.close()
    before.check()
    c.kill(c.master())
    c.wait_writable(30)
    c.wait_all_up(30)
    c.wait_converged(30)
    assert c.query("SELECT count(*) FROM kept").value == 31


def capture(c):
    """Takes the place of one replica while it is down, long enough to hear its master speak; what was said."""
    victim = c.replicas()[0]
    port = c.port + 100 + int(victim[len("node"):])
    captured = []
    pid = c.kill(victim)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        c.wait(lambda: listener.bind(("127.0.0.1", port)) is None, 10, "the port of %s" % victim)
        listener.listen()
        listener.settimeout(20 * c.ctx.slow)
        peer = None
        while not captured:  # a connection that was on its way when the replica was killed may end without a word
            connection, _ = listener.accept()
            try:
                peer = sp.Peer.accepted(connection, sp.PULL)
                captured.append(peer.receive())
            except ConnectionResetError:
                connection.close()
        head = sp.Head(captured[0])
        stream = struct.unpack_from("<Q", head.body)[0]
        length = struct.unpack_from("<I", head.body, 8)[0]
        ack_port = int(head.body[12:12 + length].decode().rsplit(":", 1)[1])
        acks = sp.Peer(ack_port)
        acks.send(sp.message(sp.POSITION, head.cluster, head.term,
                             sp.u64(stream, 0, 0, 0, 0) + b"\0" + struct.pack("<I", 0), victim))
        while sp.Head(captured[-1]).kind != sp.COMMIT:
            captured.append(peer.receive())
        peer.close()
        acks.close()
    c.wait(lambda: c.node(victim)["pid"] not in (None, pid), 20, "%s to be started again" % victim)
    c.wait_all_up(30)
    return captured


def requester(c, path):
    """Connects even while a node is replacing a listener that a broken handshake has ended."""
    return c.wait(lambda: sp.Peer(path, sp.REQ), 20, "a connection to %s" % path)


@scenario(shared=True)
def control_sockets_stand_garbage(c):
    before = Unharmed(c)
    noise = random.Random(3)
    cluster = cluster_id(c)
    sockets = control_sockets(c)
    assert len(sockets) >= c.replica_count + 1, sockets
    stalled = []
    for path in sockets:
        directory, near = in_reach(path)
        try:
            for shape in (b"\0", b"\0SP\0", noise.randbytes(64)):
                attack(lambda p: sp.Peer(p, protocol=None), near, [shape])
            for length in (1 << 63, -1, 1 << 40):
                peer = requester(c, near)
                peer.announce(length)
                assert peer.hung_up(), "%s waits for %d bytes" % (path, length)
                peer.close()
            peer = requester(c, near)
            for body in (b"", b"\x80\0\0\1", noise.randbytes(40), sp.request(b""), sp.request(noise.randbytes(100)),
                         sp.request(sp.message(sp.SET_TERM, bytes(16), 1 << 40, sender="supervisor")),
                         sp.request(sp.message(sp.PROMOTE, cluster, 1 << 40, sender="supervisor")),
                         sp.request(sp.message(sp.SET_TERM, cluster, (1 << 62) + 1, sender="supervisor")),
                         sp.request(sp.message(sp.SET_TERM, cluster, 0, sender="supervisor")),
                         sp.request(sp.message(sp.CLI_REQUEST, bytes(16), 0, sp.text(b"[" * 10000), "cli")),
                         sp.request(sp.message(sp.CLI_REQUEST, bytes(16), 0, sp.text(b'{"command": 7}'), "cli"))):
                peer.send(body)
            peer.close()
            for _ in range(80):
                stalled.append(requester(c, near))
                stalled[-1].raw(b"\1" + struct.pack(">Q", 500))
        finally:
            os.close(directory)
    before.check(same_master=False)
    assert c.command("switchover").returncode == 0
    for peer in stalled:
        peer.close()
    c.wait_writable()
    c.wait_all_up()
    c.wait_converged()
