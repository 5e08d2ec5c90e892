"""What members say to each other: over socket files on one host, over TLS between hosts; who is kept out, and
whom that costs nothing."""
import os
import random
import shutil
import socket
import ssl
import stat
import struct
import threading
import time

import sp
from certs import certs_of, make_certs, openssl, prepare, serve, trusting
from harness import scenario
from load import Load

OVER_TCP = {"replication": {"local": "tcp"}}


def ports(c):
    """The replication and ack ports of all nodes."""
    return [c.port + offset + node for offset in (100, 200) for node in range(1, c.replica_count + 2)]


def files(c):
    """The socket files that the ports of the same order have beside them."""
    return [os.path.join(c.data_dir, "run", "node%d.%s" % (node, name)) for name in ("replication", "acks")
            for node in range(1, c.replica_count + 2)]


def established(c):
    """TCP connections to the links' ports, and connections to their socket files."""
    inside = set(ports(c))
    tcp = local = 0
    with open("/proc/net/tcp") as f:
        for line in f.readlines()[1:]:
            words = line.split()
            if words[3] == "01" and int(words[1].rsplit(":", 1)[1], 16) in inside:
                tcp += 1
    pids = {"%d" % p for p in c.pids().values() if p}
    inodes = set()
    for pid in pids:
        for fd in os.listdir("/proc/%s/fd" % pid):
            try:
                inodes.add(os.readlink("/proc/%s/fd/%s" % (pid, fd)))
            except OSError:
                continue # closed meanwhile
    with open("/proc/net/unix") as f:
        for line in f.readlines()[1:]:
            words = line.split()
            if len(words) == 8 and words[5] == "03" and "socket:[%s]" % words[6] in inodes and words[7].startswith(
                    "run/node") and words[7].endswith((".replication", ".acks")):
                local += 1
    return tcp, local


def wait_established(c, wanted):
    """What connected masters and replicas of the past is closed in a moment."""
    c.wait(lambda: established(c) == wanted, 20, "%s connections, there are %s" % (wanted, established(c)))


def streams(c):
    """How often each node has begun to send or to receive a stream."""
    return {node: log_of(c, node).count("->streaming") for node in c.pids()}


def log_of(c, node):
    with open(os.path.join(c.data_dir, "log", node + ".log"), errors="replace") as f:
        return f.read()


def member_of(c):
    """What a member shows."""
    context = trusting(certs_of(c), os.path.join(certs_of(c), "node"))
    context.check_hostname = False
    return context


def stranger_of(directory, name=None):
    """Somebody who does not care whom he speaks to, with a certificate perhaps."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if name is not None:
        context.load_cert_chain(os.path.join(directory, name + ".pem"), os.path.join(directory, name + ".key"))
    return context


def spoken_to(context, port):
    """Whether the link at port says hello to who comes with context."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
            with context.wrap_socket(raw) as s:
                s.sendall(b"\0SP\0" + struct.pack(">HH", sp.PUSH, 0))
                return s.recv(8) == b"\0SP\0" + struct.pack(">HH", sp.PULL, 0)
    except (ssl.SSLError, OSError):
        return False


def exercise(c, snapshot=True):
    """Writes, a killed master, a replica made anew, a switchover: nothing is lost, in the last nothing fails."""
    load = Load(c, writers=4)
    load.wait_more(50)
    c.kill(c.master())
    load.wait_more(50)
    c.wait_all_up(30)
    if snapshot:
        victim = c.replicas()[0]
        pid = c.pid(victim)
        c.freeze(victim)
        shutil.rmtree(os.path.join(c.data_dir, victim))
        c.kill(victim)
        c.wait(lambda: c.node(victim)["pid"] not in (None, pid), 20, "%s to be started again" % victim)
        c.wait_all_up(40)
    load.wait_more(50)
    before = dict(load.errors)
    target = c.replicas()[-1]
    done = c.command("switchover", "--to", target)
    assert done.returncode == 0, done.stderr
    load.wait_more(50)
    load.stop()
    assert dict(load.errors) == before, (before, load.errors)
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)
    c.check_integrity()


@scenario(timeout_s=90)
def members_of_one_host_use_sockets_in_a_closed_directory(c):
    assert stat.S_IMODE(os.stat(os.path.join(c.data_dir, "run")).st_mode) == 0o700
    assert all(stat.S_ISSOCK(os.stat(path).st_mode) for path in files(c))
    exercise(c)
    wait_established(c, (0, 4))
    for port in ports(c):   # the ports answer all the same, to members of other hosts
        sp.Peer(port).close()


@scenario(timeout_s=90, quick=False)
def member_without_a_socket_file_is_reached_over_tcp(c):
    """One whose version does not know of it, say."""
    c.ok("CREATE TABLE t(v)")
    for path in files(c):
        os.unlink(path)
    first = c.pid(c.master())
    c.kill(c.master())
    c.wait_writable()
    c.wait(lambda: established(c)[0] >= 2, 20, "connections over TCP")
    c.wait(lambda: first not in c.pids().values() and c.wait_all_up(), 30, "all of them")
    exercise(c, snapshot=False)


@scenario(settings=OVER_TCP, timeout_s=90, quick=False)
def over_tcp_if_that_is_asked_for(c):
    exercise(c, snapshot=False)
    wait_established(c, (4, 0))


def over_tls(ctx, ca_file="certs/ca.pem", snapshot=True, rsa=False):
    c = prepare(ctx, replicas=2, tls={"ca_file": ca_file}, **OVER_TCP)
    if rsa:
        make_rsa(c)
    c.start()
    exercise(c, snapshot)
    wait_established(c, (4, 4)) # the second: from the end of a tunnel to NNG
    for node in c.pids():
        assert "stopped accepting" not in log_of(c, node)


@scenario(start=False, timeout_s=120)
def over_tls_if_there_is_tls(ctx):
    over_tls(ctx)


@scenario(start=False, timeout_s=120, quick=False, cases={"with_one_certificate": ("", False),
                                                           "with_rsa_keys": ("certs/ca.pem", True)})
def over_tls_also(ctx, ca_file, rsa):
    over_tls(ctx, ca_file, False, rsa)


def make_rsa(c):
    name = os.path.join(certs_of(c), "node")
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key", "-out", name + ".csr",
            "-subj", "/CN=rsa", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl("x509", "-req", "-in", name + ".csr", "-CA", os.path.join(certs_of(c), "ca.pem"), "-CAkey",
            os.path.join(certs_of(c), "ca.key"), "-days", "2", "-copy_extensions", "copy", "-out", name + ".pem")


def expired_member(ctx, c):
    directory = os.path.join(ctx.directory, "old")
    os.makedirs(directory)
    name = os.path.join(directory, "node")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=old")
    openssl("x509", "-req", "-in", name + ".csr", "-CA", os.path.join(certs_of(c), "ca.pem"), "-CAkey",
            os.path.join(certs_of(c), "ca.key"), "-days", "-1", "-out", name + ".pem")
    return directory


@scenario(start=False)
def ports_open_to_members_certificates_alone(ctx):
    c = serve(ctx, replicas=1, **OVER_TCP)
    other = make_certs(ctx, os.path.join(ctx.directory, "other"))
    old = expired_member(ctx, c)
    for port in ports(c):
        assert spoken_to(member_of(c), port)
        assert not spoken_to(stranger_of(None), port), "without a certificate"
        assert not spoken_to(stranger_of(other, "node"), port), "of another CA"
        assert not spoken_to(stranger_of(certs_of(c), "client"), port), "a client's"
        assert not spoken_to(stranger_of(old, "node"), port), "expired"
        early = member_of(c)
        early.minimum_version = ssl.TLSVersion.TLSv1
        early.maximum_version = ssl.TLSVersion.TLSv1_1
        early.set_ciphers("ALL:@SECLEVEL=0")
        assert not spoken_to(early, port), "TLS 1.1"
        weak = member_of(c)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA:AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA")
        assert not spoken_to(weak, port), "no forward secrecy"
        try:
            plain = sp.Peer(port)
        except (AssertionError, OSError, EOFError):
            continue
        raise AssertionError("port %d speaks in the clear: %r" % (port, plain))
    c.ok("CREATE TABLE t(v)")


class Attack(threading.Thread):
    """Does to every port, again and again, what may break a handshake, until stopped."""

    def __init__(self, c):
        super().__init__(daemon=True)
        self.c = c
        self.random = random.Random(7)
        self.stopping = threading.Event()
        self.rounds = 0
        self.silent = []
        self.context = stranger_of(None)
        self.start()

    def run(self):
        while not self.stopping.is_set():
            for port in ports(self.c):
                for blow in (self.silence,) * 10 + (self.garbage, self.hello_and_gone, self.no_certificate):
                    try:
                        blow(port)
                    except OSError:
                        pass # it may hang up whenever it likes
            self.rounds += 1

    def connect(self, port):
        return socket.create_connection(("127.0.0.1", port), timeout=20)

    def silence(self, port):
        self.silent.append(self.connect(port))
        if len(self.silent) > 1200: # 200 each
            self.silent.pop(0).close()

    def garbage(self, port):
        with self.connect(port) as s:
            s.sendall(self.random.choice((b"\0SP\0\0\x50\0\0", b"GET / HTTP/1.1\r\n\r\n", self.random.randbytes(300))))

    def hello_and_gone(self, port):
        """Ends both ways, the second time by a reset, before the other side has answered: its next write fails."""
        hello = ssl.MemoryBIO()
        try:
            self.context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
        except ssl.SSLWantReadError:
            pass
        s = self.connect(port)
        s.sendall(hello.read())
        s.shutdown(socket.SHUT_WR)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()

    def no_certificate(self, port):
        with self.connect(port) as raw, self.context.wrap_socket(raw) as s:
            s.recv(1)

    def stop(self):
        self.stopping.set()
        self.join(60)
        for s in self.silent:
            s.close()


@scenario(start=False, timeout_s=120)
def strangers_neither_cut_a_link_nor_keep_a_member_out(ctx):
    c = serve(ctx, replicas=2, **OVER_TCP)
    c.wait_all_up()
    load = Load(c, writers=2)
    load.wait_more(20)
    first = streams(c)
    attack = Attack(c)
    c.wait(lambda: attack.rounds >= 20, 60, "200 silent connections to each port, and 60 others")
    load.wait_more(50)
    assert streams(c) == first, "a link was made anew: %s, then %s" % (first, streams(c))
    for node in c.pids():
        assert "stopped accepting" not in log_of(c, node)
    victim = c.replicas()[0]
    pid = c.kill(victim)
    c.wait(lambda: c.node(victim)["pid"] not in (None, pid), 20, "%s to be started again" % victim)
    c.wait_all_up(30)
    c.kill(c.master())
    c.wait_writable(30)
    c.wait_all_up(30)
    attack.stop()
    load.wait_more(50)
    load.stop()
    load.verify()
    c.wait_converged(30)


@scenario(start=False, timeout_s=90, quick=False)
def new_certificate_is_taken_without_cutting_a_link(ctx):
    c = serve(ctx, replicas=2, **OVER_TCP)
    load = Load(c, writers=2)
    load.wait_more(20)
    first = streams(c)
    before = shown(c.port + 101)
    make_certs(ctx, certs_of(c), "--renew")
    assert c.command("reload").returncode == 0
    c.wait(lambda: all(shown(port) != before for port in ports(c)), 10, "the new certificate at every port")
    load.wait_more(50)
    assert streams(c) == first, "a link was made anew: %s, then %s" % (first, streams(c))
    with open(os.path.join(certs_of(c), "node.key"), "w") as f:
        f.write("nothing\n")
    good = shown(c.port + 101)
    done = c.command("reload")
    assert done.returncode == 1 and "stays what it is" in done.stderr + done.stdout, done
    load.wait_more(50)
    assert all(shown(port) == good for port in ports(c))
    make_certs(ctx, certs_of(c), "--renew")
    assert c.command("reload").returncode == 0
    c.kill(c.master())
    c.wait_writable(30)
    load.wait_more(50)
    load.stop()
    load.verify()
    c.wait_all_up(30)
    c.wait_converged(30)


def shown(port):
    """The certificate that a port shows: before it has seen ours, in TLS 1.3."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw, stranger_of(None).wrap_socket(raw) as s:
        return s.getpeercert(True)


@scenario(start=False)
def certificate_that_members_would_not_take_is_not_started_with(ctx):
    c = prepare(ctx, replicas=1)
    other = make_certs(ctx, os.path.join(ctx.directory, "other"))
    shutil.copy(os.path.join(other, "ca.pem"), os.path.join(certs_of(c), "ca.pem"))
    for command in ("run", "check-config"):
        done = c.command(command)
        assert done.returncode == 2 and "tls.ca_file" in done.stderr and "member" in done.stderr, (command, done.stderr)


@scenario(start=False)
def links_say_nothing_of_keys(ctx):
    c = serve(ctx, replicas=1, logging={"level": "debug"}, **OVER_TCP)
    c.ok("CREATE TABLE t(v)")
    for port in ports(c):
        assert not spoken_to(stranger_of(None), port)
        assert not spoken_to(stranger_of(certs_of(c), "client"), port)
    c.stop()
    with open(os.path.join(certs_of(c), "node.key")) as f:
        secret = [line for line in f.read().splitlines() if "-" not in line]
    assert secret
    for name in os.listdir(os.path.join(c.data_dir, "log")):
        with open(os.path.join(c.data_dir, "log", name), errors="replace") as f:
            text = f.read()
        assert "PRIVATE KEY" not in text and not any(line in text for line in secret), name
