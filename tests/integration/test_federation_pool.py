"""The pool of connections to other nodes: one limit for the process, pauses after failures, figures in /status and /metrics."""
import re
import threading
import time

from client import Client
from cluster import wait_until
from harness import scenario
from fakes import FakeNode
from test_federation_ship import at, http_answer, two

GOOD = (b'{"status":"ok","columns":["a"],"types":[""],"rows":[[1]],"row_count":1,"lsn":7,"node":"x","time_ms":1.0}')


def metrics(c, node=None):
    """Without the labels node and role, which every sample has."""
    text = c.client(node).request("GET", "/metrics").text
    text = re.sub(r'\bnode="\w+",role="\w+",?', "", text).replace("{} ", " ")
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(grizzly_\S+) (\S+)$", text, re.M)}


def remote_of(c, address, node=None):
    """What /status says of an address; None when it is not listed."""
    status = c.client(node).request("GET", "/status").json
    return next((r for r in status["remote"] if r["address"] == address), None)


def ask_at_once(c, sql, count, times=1, **more):
    """The answers to count clients at a time, each asking so often."""
    answers, lock = [], threading.Lock()

    def ask():
        client = Client("127.0.0.1", c.port, c.token, 60)
        for _ in range(times):
            answer = client.query(sql, **more)
            with lock:
                answers.append(answer)
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


@scenario(start=False)
def fifty_at_a_time_share_ten_connections(ctx):
    a, b = two(ctx)
    before = metrics(b)["grizzly_http_connections_total"]
    answers = ask_at_once(a, "SELECT count(*) FROM %s o, %s p, %s q" % (at(b), at(b), at(b)), 50, times=10)
    assert [answer.value for answer in answers] == [27] * 500
    # Each look at the figures is a connection, too.
    opened = metrics(b)["grizzly_http_connections_total"] - before - 1
    assert opened <= 10, "%d connections were opened" % opened
    figures = metrics(a)
    label = '{address="127.0.0.1:%d"}' % b.port
    assert figures["grizzly_remote_requests_total"] == 500 and figures["grizzly_remote_failures_total"] == 0
    assert figures["grizzly_remote_requests_waited_total"] > 0, "nobody had to wait: the limit was not tried"
    assert 1 <= figures["grizzly_remote_connections"] <= 10
    assert figures["grizzly_remote_address_connections" + label] == figures["grizzly_remote_connections"]
    for name in ("in_flight", "queued"):
        assert figures["grizzly_remote_requests_" + name] == 0, figures
        assert figures["grizzly_remote_address_%s%s" % (name, label)] == 0, figures
    # All fifty wait at a node that does not answer yet: ten are with it, forty here.
    release = threading.Event()
    fake = FakeNode(lambda n, s: release.wait(60) and http_answer(200, GOOD)(n, s))
    asking = threading.Thread(target=lambda: answers.extend(ask_at_once(a, "SELECT a FROM %s@t" % fake.address, 50)))
    asking.start()
    wait_until(lambda: (remote_of(a, fake.address) or {}).get("queued") == 40, 20 * ctx.slow, "forty that wait")
    listed = remote_of(a, fake.address)
    assert listed["in_flight"] == 10 and listed["connections"] == 10, listed
    assert len(fake.requests) <= 10
    release.set()
    asking.join()
    assert [answer.value for answer in answers[500:]] == [1] * 50
    fake.close()


@scenario(start=False)
def node_that_fails_is_not_hammered(ctx):
    a = ctx.cluster(replicas=0).start()
    works = threading.Event()
    fake = FakeNode(lambda n, s: works.is_set() and http_answer(200, GOOD)(n, s))  # else it closes without an answer
    sql = "SELECT a FROM %s@t" % fake.address
    started = time.monotonic()
    a.query(sql).must_fail(502, "REMOTE_ERROR")  # four tries, with pauses of 50, 100, 200 ms
    assert len(fake.requests) == 4, len(fake.requests)
    # It is left alone for 400 ms now: those with less time hear so at once, however many they are.
    answers = ask_at_once(a, sql, 20, times=20, timeout_ms=20)
    for answer in answers:
        assert answer.must_fail(502, "REMOTE_ERROR")["message"].startswith(fake.address + "@t: "), answer.text
    took_ms = (time.monotonic() - started) * 1000
    looks = 1
    while 50 * (2 ** looks - 1) <= took_ms:  # how often the pauses allow to look in that time
        looks += 1
    # On a busy machine a look's own time may be over before its answer came: the next one looks in its place.
    looks += sum("did not answer in time" in answer.message for answer in answers)
    assert len(fake.requests) <= looks + 1, (len(fake.requests), looks, took_ms)
    listed = remote_of(a, fake.address)
    assert listed["failing_ms"] > 0 and fake.address in listed["last_error"], listed
    assert metrics(a)["grizzly_remote_requests_refused_total"] > 0
    assert metrics(a)['grizzly_remote_address_failures_total{address="%s"}' % fake.address] >= 400
    # It works again: whoever asks waits for the next look, unless that is far away.
    works.set()
    wait_until(lambda: a.query(sql).ok, 20 * ctx.slow, "an answer")
    assert remote_of(a, fake.address)["failing_ms"] is None
    assert ask_at_once(a, sql, 20)[0].value == 1
    fake.close()


@scenario(replicas=1)
def forwarding_uses_the_pool(c):
    replica = c.replicas()[0]
    c.ok("CREATE TABLE t(v); INSERT INTO t VALUES (7)")
    master = "127.0.0.1:%d" % c.node_port(c.master())
    for _ in range(5):
        assert c.ok("SELECT v FROM t", node=replica)["rows"] == [[7]]
    listed = remote_of(c, master, replica)
    assert listed["requests"] == 5 and listed["failures"] == 0 and listed["connections"] == 1, listed
    assert listed["failing_ms"] is None and "last_error" not in listed
    assert metrics(c, replica)["grizzly_remote_requests_total"] == 5
    assert c.client(c.master()).request("GET", "/status").json["remote"] == []
