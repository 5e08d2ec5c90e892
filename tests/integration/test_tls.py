"""HTTPS: who is believed and who is not, on both sides; what crosses it; new certificates while it runs."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

from client import Client, raw_exchange
from harness import scenario

FILES = {"cert_file": "certs/node.pem", "key_file": "certs/node.key", "ca_file": "certs/ca.pem"}
CLIENTS = {"client_ca_file": "certs/ca.pem"}


def openssl(*words):
    done = subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_certs(ctx, directory, *options):
    done = subprocess.run([os.path.join(ctx.source_dir, "scripts", "make-certs.sh"), *options, directory],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def trusting(directory, certificate=None):
    """A client's context that trusts the CA in directory and may show a certificate of another."""
    context = ssl.create_default_context(cafile=os.path.join(directory, "ca.pem"))
    if certificate is not None:
        context.load_cert_chain(certificate + ".pem", certificate + ".key")
    return context


def certs_of(c):
    return os.path.join(c.data_dir, "certs")


def prepare(ctx, replicas=0, tls=None, **settings):
    """A cluster that is set up for TLS, not started."""
    c = ctx.cluster(replicas=replicas, settings={"tls": dict(FILES, **(tls or {})), **settings})
    make_certs(ctx, certs_of(c))
    c.tls = trusting(certs_of(c))
    return c


def serve(ctx, replicas=0, tls=None, **settings):
    return prepare(ctx, replicas, tls, **settings).start()


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


@scenario(start=False)
def old_versions_and_weak_ciphers_are_refused(ctx):
    c = serve(ctx)

    def scan(*options):
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % c.port, *options], input="",
                              capture_output=True, text=True, timeout=30 * ctx.slow, check=False)
        assert "unknown option" not in done.stderr and "Error with command" not in done.stderr, done.stderr
        return "Cipher is (NONE)" not in done.stdout

    assert scan("-tls1_3") and scan("-tls1_2")
    for version in ("-tls1", "-tls1_1"):
        assert not scan(version, "-cipher", "ALL:@SECLEVEL=0"), version
    taken = [name for name in openssl("ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").strip().split(":")
             if scan("-tls1_2", "-cipher", name + ":@SECLEVEL=0")]
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
