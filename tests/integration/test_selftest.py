"""grizzly-supervisor selftest: good where all is well, and it notices when it is not."""
import glob
import json
import os
import signal
import subprocess

from client import Client
from cluster import tagged_pids, wait_until
from harness import scenario


def start(ctx, *words):
    directory = os.path.join(ctx.directory, "disk")
    os.makedirs(directory, exist_ok=True)
    return directory, subprocess.Popen(
        [os.path.join(ctx.build_dir, "grizzly-supervisor"), "selftest", "--data-dir", directory, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ctx.environment())


def scratch_client(ctx, directory):
    """A client of the selftest's own cluster, once its tables are there."""
    def find():
        scratch = glob.glob(os.path.join(directory, "selftest-*"))[0]
        with open(os.path.join(scratch, "cluster.json")) as f:
            port = next(int(s.split(":")[1].split(",")[0]) for s in f if s.strip().startswith('"http_port"'))
        with open(os.path.join(scratch, "token")) as f:
            client = Client("127.0.0.1", port, f.read().strip(), 10 * ctx.slow, False)
        return client.query("SELECT max(n) FROM appended").value and client
    return wait_until(find, 30 * ctx.slow, "the selftest's cluster to be written to")


@scenario(start=False, timeout_s=90, quick=False)
def selftest_of_a_good_disk_is_good(ctx):
    directory, process = start(ctx, "--seconds", "6", "--json")
    out, err = process.communicate(timeout=80 * ctx.slow)
    assert process.returncode == 0, out + err
    told = json.loads(out)
    assert told["verdict"] == "good" and told["nodes_agree"], told
    assert told["lost_writes"] == told["doubled_writes"] == told["stale_reads"] == told["torn_reads"] == 0, told
    assert told["appends"] > 0 and told["transfers"] > 0 and told["reads"] > 0, told
    assert told["sync_us"]["count"] > 0 and told["sync_us"]["p50"] <= told["sync_us"]["p99"] <= told["sync_us"]["max"]
    assert sum(told["blows"].values()) >= 2 and told["failovers_ms"], told
    assert os.listdir(directory) == [], "the scratch directory is left behind"
    assert not tagged_pids(ctx.directory), "processes are left behind"
    ctx.note("%d writes, failovers %s ms" % (told["appends"] + told["transfers"], told["failovers_ms"]))


@scenario(start=False, timeout_s=90, quick=False)
def selftest_notices_writes_that_are_lost_and_doubled(ctx):
    directory, process = start(ctx, "--seconds", "3", "--json")
    client = scratch_client(ctx, directory)
    client.query("INSERT INTO appended SELECT client, n FROM appended WHERE n = 1 AND client = 0").must()
    client.query("DELETE FROM appended WHERE n = 1 AND client = 1").must()
    client.query("UPDATE account SET balance = balance + 5 WHERE id = 3").must()
    out, err = process.communicate(timeout=80 * ctx.slow)
    told = json.loads(out)
    assert process.returncode == 1 and told["verdict"] == "bad", (told, err)
    assert told["lost_writes"] == 1 and told["doubled_writes"] == 1 and told["torn_reads"] > 0, told
    assert "kept: " in err and len(os.listdir(directory)) == 1, "what is wrong is kept to be looked at: " + err


@scenario(start=False, timeout_s=60)
def selftest_that_is_interrupted_cleans_up(ctx):
    directory, process = start(ctx, "--seconds", "600")
    scratch_client(ctx, directory)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=50 * ctx.slow)
    verdict = out.rstrip().rsplit("\n", 1)[-1].split(None, 1)
    assert verdict[0] == "verdict" and (verdict[1] == "good" or verdict[1].startswith("none: interrupted")), out + err
    assert "kept" not in err, err
    assert os.listdir(directory) == [] and not tagged_pids(ctx.directory), (out, err)
