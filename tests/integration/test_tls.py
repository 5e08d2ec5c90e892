"""HTTPS: who is believed and who is not, on both sides; what crosses it; new certificates while it runs."""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time

from certs import CLIENTS, FILES, certs_of, make_certs, openssl, prepare, serve, trusting
from client import Client, raw_exchange
from cluster import rss_kb
from harness import scenario


def shake(c, context, name="localhost", port=None):
    """A handshake and a request on one connection; the socket's version and cipher."""
    with socket.create_connection(("127.0.0.1", port or c.port), timeout=10 * c.ctx.slow) as raw:
        with context.wrap_socket(raw, server_hostname=name) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while True:
                piece = s.recv(4096)
                if not piece:
                    break
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200"), answer
            return s.version(), s.cipher()[0]


def refused(c, context, name="localhost"):
    """Why there is no answer."""
    try:
        shake(c, context, name)
    except (ssl.SSLError, ConnectionError, AssertionError) as e:
        return str(e)
    raise AssertionError("it was served")


@scenario(start=False, timeout_s=90)
def every_port_and_every_hop_speaks_https(ctx):
    c = serve(ctx, replicas=2)
    c.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    for node in [n["id"] for n in c.status()["nodes"]]:
        assert c.ok("INSERT INTO t VALUES (2)", node=node)["lsn"] > 0            # replicas forward
        assert c.ok("SELECT count(*) FROM 127.0.0.1:%d@t" % c.port, node=node)    # and ask the endpoint
        assert c.client(node).request("GET", "/metrics").http == 200
    assert c.query("SELECT count(*) FROM t").value == 4
    done = c.command("backup", "--to", os.path.join(ctx.directory, "b.db"))
    assert done.returncode == 0, done.stderr
    c.kill(c.master())
    c.wait_writable()
    c.stop()


@scenario(start=False)
def members_trust_the_clusters_own_certificate_without_a_ca(ctx):
    c = prepare(ctx, replicas=1, tls={"ca_file": ""})
    c.start()
    c.ok("CREATE TABLE t(a)")
    assert c.ok("INSERT INTO t VALUES (2)", node=c.replicas()[0])["lsn"] > 0


@scenario(start=False)
def clients_refuse_a_wrong_ca_an_expired_certificate_and_a_wrong_name(ctx):
    c = serve(ctx)
    other = make_certs(ctx, os.path.join(ctx.directory, "other"))
    assert "CERTIFICATE_VERIFY_FAILED" in refused(c, trusting(other))
    assert "Hostname mismatch" in refused(c, trusting(certs_of(c)), "db.example.org")
    curl = subprocess.run(["curl", "-sS", "https://127.0.0.1:%d/health" % c.port], capture_output=True, check=False)
    assert curl.returncode == 60, curl
    years_on = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % c.port, "-verify_return_error",
                               "-CAfile", os.path.join(certs_of(c), "ca.pem"), "-attime", str(int(time.time()) + 10**8)],
                              input="", capture_output=True, text=True, timeout=30 * ctx.slow, check=False)
    assert years_on.returncode != 0 and "certificate has expired" in years_on.stderr, years_on
    shake(c, trusting(certs_of(c)))
    c.client().query("SELECT 1").must()


@scenario(start=False)
def certificate_that_has_expired_or_does_not_fit_its_key_is_not_started_with(ctx):
    c = prepare(ctx)
    other = make_certs(ctx, os.path.join(ctx.directory, "other"))
    node, key = os.path.join(certs_of(c), "node.pem"), os.path.join(certs_of(c), "node.key")
    shutil.copy(os.path.join(other, "node.key"), key)
    for command in ("run", "check-config"):
        done = c.command(command)
        assert done.returncode == 2 and "tls.key_file" in done.stderr, (command, done.returncode, done.stderr)
    request = os.path.join(ctx.directory, "old.csr")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
            "-out", request, "-subj", "/CN=old")
    openssl("x509", "-req", "-in", request, "-signkey", key, "-days", "-1", "-out", node)
    for command in ("run", "check-config"):
        done = c.command(command)
        assert done.returncode == 2 and "expired" in done.stderr, (command, done.returncode, done.stderr)
    os.unlink(key)
    done = c.command("check-config")
    assert done.returncode == 2 and "node.key" in done.stderr, done.stderr


@scenario(start=False, cases={"required": ("required",), "optional": ("optional",)})
def client_certificates_are(ctx, which):
    c = prepare(ctx, replicas=1, tls=dict(CLIENTS, client_certificates=which))
    certs, other = certs_of(c), make_certs(ctx, os.path.join(ctx.directory, "other"))
    c.tls = trusting(certs, os.path.join(certs, "client"))
    c.start()
    c.ok("CREATE TABLE t(a)")
    assert c.ok("INSERT INTO t VALUES (1)", node=c.replicas()[0])["lsn"] > 0  # nodes show theirs
    assert c.command("backup", "--to", os.path.join(ctx.directory, "b.db")).returncode == 0
    if which == "required":
        refused(c, trusting(certs))
    else:
        shake(c, trusting(certs))
    refused(c, trusting(certs, os.path.join(other, "client")))
    shake(c, trusting(certs, os.path.join(certs, "client")))


@scenario(start=False)
def required_client_certificates_that_the_nodes_lack_are_not_started_with(ctx):
    c = prepare(ctx, tls={"client_certificates": "required", "client_ca_file": "other/ca.pem"})
    make_certs(ctx, os.path.join(c.data_dir, "other"))
    done = c.command("check-config")
    assert done.returncode == 2 and "client_ca_file" in done.stderr, done.stderr


@scenario(start=False)
def plain_http_to_https_and_https_to_plain_http_are_told_so(ctx):
    c = serve(ctx, http={"request_timeout_ms": 1000})
    answer = raw_exchange("127.0.0.1", c.port, [b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 400 ") and b"speaks HTTPS" in answer, answer
    for junk in (b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 1000, b"\x80\x2e\x01\x00\x02", b"SELECT 1\n"):
        raw_exchange("127.0.0.1", c.port, [junk])
    c.client().query("SELECT 1").must()
    plain = ctx.cluster(replicas=0).start()
    assert "WRONG_VERSION_NUMBER" in refused(plain, trusting(certs_of(c)))
    answer = raw_exchange("127.0.0.1", plain.port, [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
    assert answer.startswith(b"HTTP/1.1 400 ") and b"plain HTTP" in answer, answer
    plain.client().query("SELECT 1").must()


@scenario(start=False, quick=False)  # of OpenSSL and our settings for it
def old_versions_and_weak_ciphers_are_refused(ctx):
    c = serve(ctx)

    def scan(*options):
        """The cipher that was agreed on; None: none."""
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % c.port, *options], input="",
                              capture_output=True, text=True, timeout=30 * ctx.slow, check=False)
        assert "unknown option" not in done.stderr and "Error with command" not in done.stderr, done.stderr
        agreed = re.search(r"Cipher is (\S+)", done.stdout).group(1)
        return None if agreed == "(NONE)" else agreed

    assert scan("-tls1_3") and scan("-tls1_2")
    for version in ("-tls1", "-tls1_1"):
        assert not scan(version, "-cipher", "ALL:@SECLEVEL=0"), version
    offered = openssl("ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").strip().split(":")
    assert len(offered) > 50, offered
    taken = []
    while (agreed := scan("-tls1_2", "-cipher", ":".join(offered) + ":@SECLEVEL=0")) is not None:
        taken.append(agreed)  # none but those left are offered next: at last the server finds nothing it takes
        offered.remove(agreed)
    assert taken and all(n.startswith("ECDHE-ECDSA-") and ("GCM" in n or "POLY1305" in n) for n in taken), taken
    ctx.note("TLS 1.2: " + " ".join(taken))


@scenario(start=False)
def sessions_are_resumed(ctx):
    c = serve(ctx)
    context = trusting(certs_of(c))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", c.port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as s:
            session = s.session
            assert session.has_ticket and not s.session_reused
    with socket.create_connection(("127.0.0.1", c.port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as s:
            assert s.session_reused


@scenario(start=False, timeout_s=120)
def reload_under_load_drops_no_connection(ctx):
    c = serve(ctx, replicas=1)
    c.ok("CREATE TABLE t(a)")
    first = c.client().request("GET", "/health")
    assert first.http == 200
    stop, failures, counts = threading.Event(), [], []

    def work():
        client, done = c.client(keep_alive=True), 0
        try:
            client.query("SELECT 1").must()
            before = client.connection
            while not stop.is_set() or done < 20:
                client.query("INSERT INTO t VALUES (1)").must()
                done += 1
            assert client.connection is before, "the connection was replaced"
        except Exception as e:  # pylint: disable=broad-except
            failures.append(repr(e))
        counts.append(done)

    def shown():
        return ssl.get_server_certificate(("127.0.0.1", c.port))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    seen = {shown()}
    for _ in range(5):
        make_certs(ctx, certs_of(c), "--renew")
        done = c.command("reload")
        assert done.returncode == 0 and "certificate" in done.stdout + done.stderr, (done.stdout, done.stderr)
        c.wait(lambda: shown() not in seen, 10, "the new certificate")
        seen.add(shown())
        assert c.ok("INSERT INTO t VALUES (2)", node=c.replicas()[0])["lsn"] > 0
    # One that is broken is refused, in words, and the old one stays.
    with open(os.path.join(certs_of(c), "node.pem"), "w") as f:
        f.write("-----BEGIN CERTIFICATE-----\nnonsense\n")
    done = c.command("reload")
    assert done.returncode != 0 and "tls.cert_file" in done.stdout + done.stderr, (done.stdout, done.stderr)
    assert shown() in seen
    stop.set()
    for t in threads:
        t.join()
    assert not failures, failures
    assert sum(counts) >= 80, counts


@scenario(start=False, timeout_s=120)
def large_bodies_large_answers_and_slow_readers(ctx):
    c = serve(ctx, http={"request_timeout_ms": 2000 * ctx.slow})
    text = "x" * (12 << 20)
    assert c.ok("SELECT length(?)", [text])["rows"] == [[len(text)]]
    assert c.query("SELECT ?", [text]).value == text
    sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<400000) SELECT x, hex(zeroblob(20)) FROM c"
    assert c.ok(sql)["row_count"] == 400000
    answer = c.query(sql, format="ndjson")
    assert answer.http == 200 and answer.text.count("\n") == 400000
    # Pipelined requests; a body that waits for 100 Continue; a client that reads late.
    context = trusting(certs_of(c))
    with socket.create_connection(("127.0.0.1", c.port), timeout=20 * ctx.slow) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            received = b""
            while received.count(b'{"status":"ok"}\n') < 50:
                received += s.recv(65536)
            body = json.dumps({"sql": "SELECT 7"}).encode()
            s.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\n"
                      b"Content-Length: %d\r\n\r\n" % (c.token.encode(), len(body)))
            assert s.recv(100).startswith(b"HTTP/1.1 100")
            s.sendall(body)
            received = b""
            while b"[[7]]" not in received:
                piece = s.recv(65536)
                assert piece, received
                received += piece
    # Neither a handshake that never comes nor one that breaks off holds a connection for long.
    for beginning in (b"", b"\x16\x03\x01\x02\x00\x01"):
        raw_exchange("127.0.0.1", c.port, [beginning] if beginning else [], timeout_s=30 * ctx.slow)
    c.stop()


class Records:
    """A client that decides itself what is a record, and which records go to the socket at once."""

    def __init__(self, c, version):
        context = trusting(certs_of(c))
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.socket = socket.create_connection(("127.0.0.1", c.port), timeout=30 * c.ctx.slow)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                self.tls.do_handshake()
                break  # what ends it may be with us still: it goes with the first records
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                self.incoming.write(self.socket.recv(1 << 16))

    def encrypt(self, text, record_bytes):
        for at in range(0, len(text), record_bytes):
            self.tls.write(text[at:at + record_bytes])
        return self.outgoing.read()

    def send(self, text, record_bytes):
        self.socket.sendall(self.encrypt(text, record_bytes))

    def receive(self, count, what=b"HTTP/1.1 200"):
        """Until there were so many answers, or all there is when count is None."""
        received = b""
        while count is None or received.count(what) < count:
            try:
                piece = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                raw = self.socket.recv(1 << 16)
                if raw:
                    self.incoming.write(raw)
                else:
                    self.incoming.write_eof()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                piece = b""
            if not piece:
                assert count is None, (count, received[-300:])
                break
            received += piece
        return received


@scenario(start=False, timeout_s=120, cases={"tls_1_2": (ssl.TLSVersion.TLSv1_2,),
                                            "tls_1_3": (ssl.TLSVersion.TLSv1_3,)})
def records_may_come_in_any_number_at_once_and_in_parts(ctx, version):
    c = serve(ctx)
    c.ok("CREATE TABLE t(a)")

    def post(sql, *args):
        body = json.dumps({"sql": sql, "params": args}).encode()
        return (b"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
                % (c.token.encode(), len(body), body))

    for first, record_bytes in ((b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 5), (post("SELECT 1"), 90)):
        r = Records(c, version)
        r.send(first, record_bytes)  # right behind the handshake
        r.receive(1)
        for size in (1, 7, 60, 1400, 16384):
            r.send(post("SELECT length(?)", "x" * 300), size)
            assert b"[[300]]" in r.receive(1)
        for size in (1400, 4091, 4096, 16384):  # bodies of many records
            r.send(post("SELECT length(?)", "x" * 200000), size)
            assert b"[[200000]]" in r.receive(1)
        # Requests that come together, the next while one is being worked on, each in a record and in several.
        for size in (30, 1 << 14):
            r.socket.sendall(b"".join(r.encrypt(post("INSERT INTO t VALUES (?)", i), size) for i in range(20)))
            r.receive(20)
        # A record comes in two parts, the first with a whole one before it.
        for cut in (1, 4, 5, 6, -1):
            whole = r.encrypt(post("SELECT 1"), 1 << 14)
            parted = r.encrypt(post("SELECT 'in parts'"), 1 << 14)
            r.socket.sendall(whole + parted[:cut])
            r.receive(1)
            r.socket.sendall(parted[cut:])
            assert b"in parts" in r.receive(1)
        r.socket.close()
    assert c.query("SELECT count(*) FROM t").value == 80
    # Idle connections give up their buffers, but nothing that lies there. Nothing shows when they do.
    idle = [(Records(c, version), cut) for cut in (0, 1, 5, 40)]
    parted = []
    for r, cut in idle:
        r.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 1 << 14)
        r.receive(1)
        whole, second = r.encrypt(post("SELECT 1"), 1 << 14), r.encrypt(post("SELECT 'rested'"), 1 << 14)
        r.socket.sendall(whole + second[:cut])
        r.receive(1)
        parted.append(second[cut:])
    time.sleep(1.5)
    for (r, _), rest in zip(idle, parted):
        r.socket.sendall(rest)
        assert b"rested" in r.receive(1)
        r.send(post("SELECT length(?)", "x" * 200000), 1400)
        assert b"[[200000]]" in r.receive(1)
        r.socket.close()
    # What cannot be a request is refused, whatever came along with it.
    r = Records(c, version)
    r.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 9)
    r.receive(1)
    r.send(b"nonsense\r\n\r\n" * 40, 13)
    assert r.receive(None).count(b"HTTP/1.1 400") == 1
    r.socket.close()
    # Who says goodbye right behind a request is not answered: it is not worked on any longer.
    r = Records(c, version)
    r.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 1 << 14)
    r.receive(1)
    endless = "WITH RECURSIVE i(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM i) SELECT count(*) FROM i"
    request = r.encrypt(post(endless), 1 << 14)
    try:
        r.tls.unwrap()
    except ssl.SSLWantReadError:
        r.socket.sendall(request + r.outgoing.read())
    assert b"HTTP" not in r.receive(None)
    r.socket.close()
    c.stop()


@scenario(start=False)
def address_that_others_reach_needs_tls_or_insecure(ctx):
    c = ctx.cluster(replicas=0, settings={"bind": "0.0.0.0"})
    for command in ("run", "check-config"):
        done = c.command(command)
        assert done.returncode == 2 and "insecure" in done.stderr and "tokens" in done.stderr, (command, done.stderr)
    c.config["insecure"] = True
    c.write_config()
    assert "in the clear" in c.command("check-config").stderr
    c.start()
    c.stop()
    del c.config["insecure"]
    c.config["tls"] = FILES
    c.write_config()
    make_certs(ctx, certs_of(c))
    c.tls = trusting(certs_of(c))
    c.start()


@scenario(start=False, replicas=0)
def federation_speaks_https_to_those_that_the_configuration_names(ctx):
    far = serve(ctx)
    far.ok("CREATE TABLE t(a); INSERT INTO t VALUES (41)")
    near = ctx.cluster(replicas=0, settings={"remote": {"nodes": {"127.0.0.1:%d" % far.port: {
        "token_file": "far.token", "tls": {"ca_file": os.path.join(certs_of(far), "ca.pem")}}}}})
    shutil.copy(os.path.join(far.data_dir, "token"), os.path.join(near.data_dir, "far.token"))
    near.start()
    sql = "SELECT a + 1 FROM 127.0.0.1:%d@t" % far.port
    assert near.query(sql).value == 42
    near.stop()
    other = make_certs(ctx, os.path.join(ctx.directory, "other"))
    near.config["remote"]["nodes"]["127.0.0.1:%d" % far.port]["tls"]["ca_file"] = os.path.join(other, "ca.pem")
    near.write_config()
    near.start()
    answer = near.query(sql)
    assert not answer.ok and "certificate" in answer.text, answer.text


@scenario(start=False)
def keys_show_nowhere(ctx):
    c = serve(ctx, replicas=1, logging={"level": "debug"})
    c.ok("CREATE TABLE t(a)", node=c.replicas()[0])
    make_certs(ctx, certs_of(c), "--renew")
    c.command("reload")
    texts = [c.client(n["id"]).request("GET", path).text for n in c.status()["nodes"] for path in ("/status", "/metrics")]
    texts.append(c.command("check-config").stdout)
    for pid in c.pids().values():
        with open("/proc/%d/cmdline" % pid) as f:
            texts.append(f.read())
    c.stop()
    for path in ctx.logs():
        with open(path, errors="replace") as f:
            texts.append(f.read())
    for name in ("ca.key", "node.key", "client.key"):
        with open(os.path.join(certs_of(c), name)) as f:
            lines = [line.strip() for line in f if line.strip() and not line.startswith("-----")]
        for line in lines:
            assert not any(line in text for text in texts), "a line of %s shows" % name
    assert not any("PRIVATE KEY" in text for text in texts)


def stalled(c, sql, encrypted, **more):
    """A socket on which the question was asked, and of whose answer little is ever taken."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(30 * c.ctx.slow)
    raw.connect(("127.0.0.1", c.port))
    s = trusting(certs_of(c)).wrap_socket(raw, server_hostname="localhost") if encrypted else raw
    body = json.dumps(dict({"sql": sql}, **more)).encode()
    s.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
              % (c.token.encode(), len(body), body))
    assert s.recv(12).startswith(b"HTTP/1.1 200"[:4]), "it has begun to answer"
    return s


def is_cut(s):
    """Whether the connection ends before the answer does, read to what end it has."""
    received = b""
    try:
        while True:
            piece = s.recv(1 << 16)
            if not piece:
                break
            received += piece
    except (ConnectionResetError, ssl.SSLError):
        pass
    return b'"status":"ok"}' not in received[-100:] and not received.endswith(b"0\r\n\r\n")


def gauge(c, name):
    text = c.client().request("GET", "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))


# A stream is cut when its query's time is over, a whole answer after http.idle_timeout_ms (docs/operations.md).
STALLS = {"stream": ("WITH RECURSIVE i(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM i LIMIT 3000000) "
                     "SELECT x, 'some text that makes it long' FROM i", {"timeout_ms": 1000}),
          "whole": ("SELECT hex(zeroblob(120000))", {})}


@scenario(start=False, timeout_s=120, quick=("stream_tls", "whole_plain"),
          cases={"%s_%s" % (kind, how): (kind, how == "tls") for kind in STALLS for how in ("plain", "tls")})
def client_that_stalls_is_cut_and_costs_nothing_more(ctx, kind, encrypted):
    settings = {"http": {"idle_timeout_ms": 1000}}
    c = serve(ctx, **settings) if encrypted else ctx.cluster(replicas=0, settings=settings).start()
    sql, more = STALLS[kind]
    c.ok("SELECT 1")
    pid = c.pid("node1")
    before = peak = 0
    for _ in range(2):
        before = rss_kb(pid)  # the second time: what is allocated once is there then
        crowd = [stalled(c, sql, encrypted, **more) for _ in range(4)]
        peak = rss_kb(pid)
        c.wait(lambda: gauge(c, "grizzly_http_connections") <= 1, 20, "the stalled connections to be closed")
        assert all(is_cut(s) for s in crowd)
        for s in crowd:
            s.close()
    assert gauge(c, "grizzly_http_requests_in_flight") <= 1
    c.query("SELECT 1").must()
    ctx.note("%d KiB before, %d with 4 of them, %d after" % (before, peak, rss_kb(pid)))
    if not ctx.sanitizer:
        assert rss_kb(pid) - before < 4096, (before, peak, rss_kb(pid))
    c.stop()
