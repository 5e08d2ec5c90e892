"""Wrong settings and wrong words on the command line: refused at once, and the message names the culprit."""
import json
import os
import socket
import subprocess

from harness import scenario


def run_once(c, *words, program="grizzly-supervisor", timeout_s=20):
    return subprocess.run([os.path.join(c.ctx.build_dir, program), *words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, env=c.environment(), check=False,
                          timeout=timeout_s * c.ctx.slow)


def refused(c, code, *culprits):
    done = run_once(c, "run", "--data-dir", c.data_dir)
    said = done.stdout + done.stderr
    assert done.returncode == code, "exit %d, expected %d: %s" % (done.returncode, code, said)
    for culprit in culprits:
        assert culprit in said, "no word of %s in: %s" % (culprit, said)
    return said


@scenario(start=False, timeout_s=30, cases={
    "unknown_key": ({"replicaz": 2}, "replicaz"), "unknown_nested_key": ({"http": {"worker": 2}}, "worker"),
    "text_for_number": ({"http_port": "8080"}, "http_port"), "negative": ({"replicas": -1}, "replicas"),
    "too_many": ({"replicas": 31}, "replicas"), "real": ({"replicas": 1.5}, "replicas"),
    "port_too_high": ({"http_port": 70000}, "http_port"), "port_range": ({"http_port": 65530}, "http_port"),
    "wrong_word": ({"durability": "perhaps"}, "durability"), "number_for_object": ({"http": 1}, "http"),
    "null": ({"bind": None}, "bind"), "cluster_id": ({"cluster": "xyz"}, "cluster"),
    "zero_misses": ({"heartbeat": {"misses": 0}}, "misses"),
    "tiny_segments": ({"store": {"segment_size_bytes": 10}}, "segment_size_bytes")})
def wrong_settings_exit_2_and_are_named(ctx, settings, culprit):
    c = ctx.cluster(replicas=1, settings={k: v for k, v in settings.items()})
    c.config.update(settings)
    c.write_config()
    refused(c, 2, culprit, "cluster.json")


@scenario(start=False, timeout_s=30, cases={
    "cut": ('{"replicas": 1', "cluster.json"), "array": ("[]", "cluster.json"), "empty": ("", "cluster.json"),
    "twice": ('{"replicas": 1, "replicas": 2}', "replicas"), "open_comment": ('/* {"replicas": 1}', "cluster.json"),
    "invalid_utf8": ('{"bind": "\udcff"}', "cluster.json")})
def files_that_are_no_settings_exit_2(ctx, text, culprit):
    c = ctx.cluster(replicas=1)
    with open(os.path.join(c.data_dir, "cluster.json"), "w", errors="surrogateescape") as f:
        f.write(text)
    refused(c, 2, culprit)


@scenario(start=False, timeout_s=30)
def line_of_a_syntax_error_is_named(ctx):
    c = ctx.cluster(replicas=1)
    with open(os.path.join(c.data_dir, "cluster.json"), "w") as f:
        f.write('{\n\t// a comment\n\t"replicas": 1,\n\t"http_port" 8080\n}\n')
    assert "4" in refused(c, 2, "cluster.json")


@scenario(start=False, timeout_s=30)
def comments_in_settings_are_allowed(ctx):
    c = ctx.cluster(replicas=0)
    with open(os.path.join(c.data_dir, "cluster.json"), "w") as f:
        f.write('// first\n{ /* in\n between */ "replicas": 0, // rest\n"http_port": %d, "cluster": "%s" }\n' % (
            c.port, c.config["cluster"]))
    c.start()
    c.wait_writable()


@scenario(start=False, timeout_s=60, cases={"endpoint": (0,), "node": (2,), "replication": (102,), "acks": (201,)})
def port_in_use_is_named(ctx, offset):
    """The endpoint's port ends the start at once; a node's own is at least reported, and nothing pretends to be up."""
    c = ctx.cluster(replicas=1)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", c.port + offset))
        s.listen(1)
        if offset == 0:
            said = refused(c, 1, str(c.port))
            assert "in use" in said.lower(), said
            return
        c.start_supervisor()

        def reported():
            text = ""
            for path in ctx.logs():
                with open(path, errors="replace") as f:
                    text += f.read()
            return str(c.port + offset) in text and "in use" in text.lower()
        c.wait(reported, 10, "a log line that names port %d" % (c.port + offset))
        if c.supervisor.poll() is None:
            assert not all(n["state"] == "up" for n in c.status()["nodes"]), c.status()
    if c.supervisor.poll() is None:
        c.wait_all_up(30)  # once the port is free, it gets there by itself
    else:
        assert c.supervisor.returncode in (1, 2), c.supervisor.returncode


@scenario(start=False, timeout_s=30, cases={
    "no_command": ([],), "unknown_command": (["dance"],), "unknown_option": (["run", "--data-dir", "{d}", "--dance"],),
    "no_data_dir_value": (["run", "--data-dir"],), "bad_number": (["run", "--data-dir", "{d}", "--replicas", "x"],),
    "too_many_replicas": (["run", "--data-dir", "{d}", "--replicas", "31"],),
    "surplus_word": (["status", "--data-dir", "{d}", "surplus"],),
    "bad_port": (["run", "--data-dir", "{d}", "--http-port", "0x50"],)})
def wrong_command_lines_exit_2(ctx, words):
    c = ctx.cluster(replicas=0)
    done = run_once(c, *[w.format(d=c.data_dir) for w in words])
    assert done.returncode == 2 and done.stderr.strip(), (done.returncode, done.stdout, done.stderr)


@scenario(start=False, timeout_s=30)
def help_and_version_exit_0(ctx):
    c = ctx.cluster(replicas=0)
    for program in ("grizzly-supervisor", "grizzly-master", "grizzly-replica"):
        done = run_once(c, "--help", program=program)
        assert done.returncode == 0 and "--" in done.stdout, (program, done)
        done = run_once(c, "--dance", program=program)
        assert done.returncode == 2 and done.stderr.strip(), (program, done)


@scenario(start=False, timeout_s=30, cases={"status": ("status",), "switchover": ("switchover",)})
def commands_to_a_cluster_that_is_not_running_exit_3(ctx, command):
    c = ctx.cluster(replicas=0)
    done = c.command(command)
    assert done.returncode == 3 and done.stderr.strip(), (done.returncode, done.stdout, done.stderr)


@scenario(start=False, timeout_s=30)
def stop_of_a_cluster_that_is_not_running_is_done_already(ctx):
    c = ctx.cluster(replicas=0)
    done = c.command("stop")
    assert done.returncode == 0 and "nothing runs" in done.stdout, (done.returncode, done.stdout, done.stderr)


@scenario(start=False, timeout_s=60)
def options_of_the_first_start_are_written_down(ctx):
    c = ctx.cluster(replicas=1)
    os.unlink(os.path.join(c.data_dir, "cluster.json"))
    c.supervisor = subprocess.Popen(
        [c.supervisor_bin, "run", "--data-dir", c.data_dir, "--replicas", "1", "--http-port", str(c.port), "--bind",
         "127.0.0.1"], env=c.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)
    c.wait_ready()
    c.wait_all_up()
    assert os.path.exists(os.path.join(c.data_dir, "cluster.json"))
    c.wait_writable()
    c.stop()
    c.start()  # without options: the file says it all
    assert c.status()["endpoint"] == "127.0.0.1:%d" % c.port


@scenario(start=False, timeout_s=60)
def directory_of_another_cluster_is_refused(ctx):
    a = ctx.cluster(replicas=0)
    a.start()
    a.ok("CREATE TABLE mine(v)")
    a.stop()
    a.config["cluster"] = "0" * 31 + "1"
    a.write_config()
    a.start_supervisor()

    def told():
        if a.supervisor.poll() is not None:
            return a.supervisor.returncode != 0
        return a.status()["nodes"][0]["state"] != "up" and any("cluster" in open(p).read() for p in ctx.logs())
    a.wait(told, 10, "a refusal")


@scenario(timeout_s=60)
def status_has_the_promised_shape(c):
    status = c.wait_all_up()
    for key in ("cluster", "term", "master", "endpoint", "failovers", "nodes"):
        assert key in status, key
    assert status["endpoint"] == "127.0.0.1:%d" % c.port and status["cluster"] == c.config["cluster"], status
    for n in status["nodes"]:
        for key in ("id", "role", "state", "pid", "http", "replication", "term", "durable_lsn", "applied_lsn",
                    "committed_lsn", "lag_ms", "heartbeat_age_ms", "restarts"):
            assert key in n, (key, n)
        i = int(n["id"][4:])
        assert n["http"] == "127.0.0.1:%d" % (c.port + i), n
        assert n["replication"] == "127.0.0.1:%d" % (c.port + 100 + i), n
        assert n["role"] == ("master" if n["id"] == status["master"] else "replica"), n
    plain = c.command("status")
    assert plain.returncode == 0 and all(n in plain.stdout for n in ("node1", "node2", "node3")), plain
    assert json.loads(c.command("status", "--json").stdout)["master"] == status["master"]


@scenario(timeout_s=60)
def hung_and_dead_nodes_show_in_the_status(c):
    node = c.replicas()[0]
    pid = c.freeze(node)
    c.wait(lambda: c.node(node)["state"] != "up", 10, "%s to be shown as not up" % node)
    c.thaw(pid)
    c.wait_all_up()


@scenario(start=False)
def nodes_say_what_is_wrong_with_their_options(ctx):
    for program, options, expected in (
            ("grizzly-master", ["--bogus"], "--bogus"), ("grizzly-master", ["--id"], "value is missing after: --id"),
            ("grizzly-master", ["--id", "nodeX"], "nodeX"), ("grizzly-replica", ["--term", "3"], "--term"),
            ("grizzly-master", ["--term", "99999999999999999999"], "--term expects"),
            ("grizzly-replica", ["--id", "node1"], "--data-dir is required"),
            ("grizzly-replica", ["stray"], "unexpected argument: stray")):
        done = subprocess.run([os.path.join(ctx.build_dir, program)] + options, capture_output=True, text=True,
                              timeout=10 * ctx.slow, check=False)
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 2 and expected in lines[0], (options, done)
