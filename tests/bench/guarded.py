"""What TLS and tokens cost reads. Used by bench.py.

HTTPS against HTTP: two clusters alike, one with certificates of its own, asked in turns by the same client over kept
connections, point reads and large bodies; and what OpenSSL alone takes for the request of a point read and its answer,
which is the least that HTTPS can cost. Tokens: one of a tokens file against the first one; and how long the check itself
takes, which is a hash and a comparison on a connection that sent the same one before.
"""

import json
import os
import statistics
import subprocess

from cluster import BenchError, Cluster

SELECT = json.dumps({"sql": "SELECT name, amount FROM r WHERE id = ?", "params": ["%r"]}).replace('"%r"', "%r")
ROWS = 10000
LARGE_BYTES = 8 << 20
# Many short rounds: what slows this machine for seconds then slows both of a pair, or one of few.
ROUNDS, ROUND_MS = 15, 1000


def https_cluster(bench, data_dir):
    """Its certificates are made first, for its configuration names them."""
    certs = os.path.join(data_dir, "certs")
    os.makedirs(data_dir)
    make = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "make-certs.sh")
    subprocess.run([make, certs], check=True, stdout=subprocess.DEVNULL)
    tls = {"cert_file": "certs/node.pem", "key_file": "certs/node.key", "ca_file": "certs/ca.pem"}
    return Cluster(bench.args.build_dir, data_dir, bench.args.http_port + 7000, 2, {"tls": tls},
                   ca_file=os.path.join(certs, "ca.pem"))


def fill(cluster):
    client = cluster.client()
    client.query("CREATE TABLE r(id INTEGER PRIMARY KEY, name TEXT, amount REAL)")
    client.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                 "INSERT INTO r(name, amount) SELECT 'name ' || i, i * 1.5 FROM n" % ROWS)
    client.close()


def add_token(cluster, name):
    done = subprocess.run([cluster.supervisor_path, "token", "add", name, "--role", "read", "--data-dir",
                           cluster.data_dir], capture_output=True, text=True, check=False)
    token = next((line for line in done.stdout.split() if line.startswith("gz_")), None)
    if done.returncode != 0 or token is None:
        raise BenchError("token add: exit %d: %s" % (done.returncode, done.stderr))
    return token


def reads(bench, cluster, connections, token_file, body):
    more = ["--ca-file", cluster.ca_file] if cluster.ca_file else []
    run = bench.run_json("load", "--address", cluster.endpoint, "--token-file", token_file, "--connections",
                         connections, "--duration-ms", ROUND_MS, "--ids", ROWS, "--expect", '"status":"ok"', *body, *more)
    if run["bad_status"] + run["unexpected"] + run["broken"] > 0:
        raise BenchError("a read went wrong: %s" % run["first_bad"])
    return run


def compare(bench, title, against, pairs, body=("--body", SELECT)):
    """pairs: name, connections, (cluster, token file), the same to compare with. Rounds in turns, first the one, then the
    other; the median of ratios."""
    out = []
    bench.heading(title, against)
    for name, connections, mine, theirs in pairs:
        a, b = [], []
        for i in range(3 if bench.args.quick else ROUNDS):
            for runs, which in ((b, theirs), (a, mine))[::1 if i % 2 == 0 else -1]:
                runs.append(reads(bench, which[0], connections, which[1], body))
        rate = [statistics.median(run["rate"] for run in runs) for runs in (a, b)]
        ratio = statistics.median(x["rate"] / y["rate"] for x, y in zip(a, b))
        p50, p99 = (statistics.median(run[key] for run in a) for key in ("p50_us", "p99_us"))
        bench.line(name, "%.0f/s" % rate[0], "%.0f/s" % rate[1], "%.2f" % ratio, bench.ms(p50), bench.ms(p99), "")
        out.append({"name": name, "rate": rate[0], "against": rate[1], "ratio": ratio})
    return out


def guarded(bench):
    plain = Cluster(bench.args.build_dir, os.path.join(bench.work_dir, "plain"), bench.args.http_port + 6000, 2)
    https = https_cluster(bench, os.path.join(bench.work_dir, "https"))
    try:
        for cluster in (plain, https):
            cluster.start()
            fill(cluster)
        named = os.path.join(bench.work_dir, "named-token")
        with open(named, "w", encoding="ascii") as f:
            f.write(add_token(plain, "reader"))
        tls = compare(bench, "point SELECT over HTTPS, kept connections", "HTTP", [
            ("%d connections" % n, n, (https, https.token_file), (plain, plain.token_file)) for n in (1, 16, 64)])
        large = os.path.join(bench.work_dir, "large-body")
        with open(large, "w", encoding="ascii") as f:
            json.dump({"sql": "SELECT length(?)", "params": ["x" * LARGE_BYTES]}, f)
        bodies = compare(bench, "bodies of %d MiB over HTTPS" % (LARGE_BYTES >> 20), "HTTP", [
            ("1 connection", 1, (https, https.token_file), (plain, plain.token_file))], ("--body-file", large))
        tokens = compare(bench, "point SELECT with a token of the tokens file", "first token", [
            ("%d connections" % n, n, (plain, named), (plain, plain.token_file)) for n in (1, 64)])
        records = bench.run_json("tls_cost", "--cert-file", os.path.join(https.data_dir, "certs", "node.pem"), "--key-file",
                                 os.path.join(https.data_dir, "certs", "node.key"), "--request-bytes", 260,
                                 "--answer-bytes", 292)
    finally:
        plain.stop()
        https.stop()
    print("OpenSSL alone: %.1f us for a request and its answer on both ends together (a request over HTTP takes %.1f us of "
          "the processors at 64 connections)" % (records["exchange_us"], os.cpu_count() * 1e6 / tls[-1]["against"]))
    cost = bench.run_json("auth_cost")
    share = cost["remembered_ns"] / 1e9 * tokens[-1]["rate"]
    print("the check itself: %.0f ns of a token that the connection sent before (%.2f %% of a core at that rate), "
          "%.1f us of a new one of %d" % (cost["remembered_ns"], share * 100, cost["afresh_ns"] / 1000, cost["tokens"]))
    print("target: HTTPS at least 0.75 of HTTP; tokens at most 2 %")
    bench.results["guarded"] = {"https": tls, "bodies": bodies, "records": records, "tokens": tokens, "check": cost}
