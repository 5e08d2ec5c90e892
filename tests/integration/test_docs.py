"""The documentation says what the cluster does: its examples are run and must be answered as they are printed.

docs/protocol.md: fenced blocks "json request [nodeN]" and "json|ndjson response [HTTP status]" in pairs, "json get PATH"
(the same keys and types) and "text get PATH" (each word occurs in the answer), in order on one fresh cluster.
README.md: the console blocks of the tour, "$ " before commands, are typed into a shell. Positions, times, process numbers
and ids may differ; a command that only looks is repeated until it shows what is printed, for a cluster takes its time.
"""
import json
import os
import re
import ssl
import subprocess
import time

from harness import scenario

VOLATILE = ("lsn", "time_ms", "node", "bytes", "ms")
FENCE = re.compile(r"^```(\w+)[ ]*([^\n]*)\n(.*?)^```$", re.M | re.S)


def read_document(c, name):
    with open(os.path.join(c.ctx.source_dir, name), encoding="utf-8") as f:
        return f.read()


def blocks(text):
    """[(language, [words], body)] of the fenced blocks, in order."""
    return [(m.group(1), m.group(2).split(), m.group(3)) for m in FENCE.finditer(text)]


def differs(printed, got, path="answer"):
    """Why got is not what is printed; None when it is. Volatile keys only need the same type."""
    if type(printed) is not type(got):
        return "%s: %r is printed, %r came" % (path, printed, got)
    if isinstance(printed, dict):
        if list(printed) != list(got):
            return "%s: keys %s are printed, %s came" % (path, list(printed), list(got))
        pairs = [(k, printed[k], got[k]) for k in printed if k not in VOLATILE]
        mistyped = [k for k in printed if k in VOLATILE and type(printed[k]) is not type(got[k])]
        if mistyped:
            return "%s: type of %s" % (path, mistyped)
    elif isinstance(printed, list):
        if len(printed) != len(got):
            return "%s: %d entries are printed, %d came" % (path, len(printed), len(got))
        pairs = [(i, printed[i], got[i]) for i in range(len(printed))]
    else:
        return None if printed == got else "%s: %r is printed, %r came" % (path, printed, got)
    for key, a, b in pairs:
        why = differs(a, b, "%s[%r]" % (path, key))
        if why is not None:
            return why
    return None


def shape(value):
    """Keys and types without values."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value]
    return type(value).__name__


def check_response(request, words, language, body, answer):
    expected_http = int(words[0]) if words else 200
    assert answer.http == expected_http, "%s\nHTTP %s: %s" % (request, answer.http, answer.text)
    if language == "ndjson":
        assert answer.text == body, "%s\n%s" % (request, answer.text)
        return
    got = answer.json
    if isinstance(got, dict) and list(got)[-1:] == ["status"]:  # it was streamed
        got = dict({"status": got["status"]}, **got)
    why = differs(json.loads(body), got)
    assert why is None, "%s\n%s\n%s" % (request, answer.text, why)


def check_get(c, path, language, body):
    answer = c.client().request("GET", path)
    assert answer.http == 200, (path, answer.text)
    if language == "json":
        assert shape(json.loads(body)) == shape(answer.json), "%s: %s" % (path, answer.text)
        return
    for word in body.split():
        name, _, labels = word.rstrip("}").partition("{")
        assert "# TYPE %s " % name in answer.text, "%s lacks %s" % (path, word)
        assert re.search("^%s[a-z_]*[{ ].*%s" % (name, re.escape(labels)), answer.text, re.M), (path, word)


def run_examples(c, text):
    """(pairs of request and response, gets) that were as printed."""
    pending, request, pairs, gets = None, None, 0, 0
    for language, words, body in blocks(text):
        kind = words[0] if words else ""
        if kind == "request":
            assert pending is None, "no response follows\n" + request
            request = body.strip()
            json.loads(request)
            pending = c.client(words[1] if len(words) > 1 else None).request("POST", "/query", request)
        elif kind == "response":
            assert pending is not None, "a response without a request: " + body
            check_response(request, words[1:], language, body, pending)
            pending = None
            pairs += 1
        elif kind == "get":
            check_get(c, words[1], language, body)
            gets += 1
    assert pending is None, "no response follows\n" + request
    return pairs, gets


@scenario(timeout_s=60)
def protocol_examples_are_answered_as_printed(c):
    pairs, gets = run_examples(c, read_document(c, "docs/protocol.md"))
    assert pairs >= 10 and gets == 6, (pairs, gets)
    c.ctx.note("%d examples" % (pairs + gets))


@scenario(timeout_s=60)
def federation_examples_are_answered_as_printed(c):
    pairs, _ = run_examples(c, read_document(c, "docs/federation.md").replace("127.0.0.1:8080", "127.0.0.1:%d" % c.port))
    assert pairs >= 7, pairs
    c.ctx.note("%d examples" % pairs)


@scenario(timeout_s=30)
def error_codes_are_all_documented_with_their_status(c):
    text = read_document(c, "docs/protocol.md")
    with open(os.path.join(c.ctx.source_dir, "common", "query", "answer.h"), encoding="utf-8") as f:
        codes = re.findall(r"X\((\w+), (\d+)\)", f.read())
    assert len(codes) > 10, codes
    for code, http in codes:
        assert "| %s | %s |" % (code, http) in text, (code, http)


@scenario(timeout_s=30)
def metrics_are_all_documented(c):
    text = read_document(c, "docs/protocol.md")
    for line in c.client().request("GET", "/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            assert line.split()[2] in text, line


@scenario(start=False, timeout_s=30, quick=False)
def settings_are_all_documented_with_their_defaults(ctx):
    """Each line of a new cluster.json is in docs/operations.md, and in the manual page."""
    c = ctx.cluster(replicas=2)
    os.unlink(os.path.join(c.data_dir, "cluster.json"))
    done = c.command("run", "--http-port", str(c.port), "--daemon")
    assert done.returncode == 0, done.stderr
    with open(os.path.join(c.data_dir, "cluster.json"), encoding="utf-8") as f:
        settings = re.findall(r'^\W*"(\w+)": ("?[^\s,{]+)', f.read(), re.M)
    assert len(settings) > 20, settings
    operations, manual = read_document(c, "docs/operations.md"), read_document(c, "docs/man/grizzly-cluster.json.5")
    for key, value in settings:
        rows = re.findall(r"^\| `(?:\w+\.)?%s` \| (\S+) \|" % key, operations, re.M)
        assert rows, "docs/operations.md lacks " + key
        assert re.search(r"^\.It Cm %s$" % key, manual, re.M), "grizzly-cluster.json.5 lacks " + key
        if key not in ("cluster", "http_port"):
            shown = value.strip('"') or '""'
            assert shown in rows, "%s is %s by default: %s" % (key, value, rows)
            assert "The default is %s." % shown in manual, (key, value)
    c.command("stop")


@scenario(start=False, timeout_s=30, quick=False)
def command_line_options_are_all_in_the_manual_pages(ctx):
    c = ctx.cluster(replicas=0)
    for program in ("grizzly-supervisor", "grizzly-master", "grizzly-replica"):
        usage = subprocess.run([os.path.join(ctx.build_dir, program), "--help"], capture_output=True, text=True,
                               env=c.environment(), check=True).stdout
        manual = read_document(c, "docs/man/%s.1" % program).replace("\\-", "-")
        options = set(re.findall(r"--([a-z-]+)", usage))
        assert len(options) > 5, usage
        for option in options:
            assert re.search(r"\bFl -%s\b|\| -%s\b" % (option, option), manual), "%s.1 lacks --%s" % (program, option)


# ---- the tour of README.md

def session(text):
    """[(command, printed output)] of the console blocks."""
    body = "".join(b for language, _, b in blocks(text) if language == "console")
    steps = []
    for line in body.splitlines():
        if line.startswith("$ "):
            steps.append([line[2:], []])
        else:
            steps[-1][1].append(line)
    return [(command, "\n".join(output)) for command, output in steps]


def place(text, c):
    """A document's ports and directory as this run has them."""
    text = re.sub(r"\b8(0|1|2)(\d\d)\b", lambda m: str(c.port + int(m.group(0)) - 8080), text)
    return text.replace("scripts/start-cluster.sh", "scripts/start-cluster.sh --http-port %d" % c.port)


def normal_row(cells):
    """A row of the status table: process, positions and lag are numbers, node2 and node3 are as good as each other."""
    cells = [re.sub(r"^\d+$", "N", cell) if i not in (0, 11) else cell for i, cell in enumerate(cells)]
    return cells[:4] + cells[5:]


def normal(text):
    """What must be equal: no ids, times, process numbers, positions, directories; rows in any order, one space between."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text)
    text = re.sub(r"/\S*/data\b", "DATA", text)
    text = re.sub(r"/\S*/(?=grizzly-(supervisor|master|replica)\b)", "build/", text)
    text = re.sub(r"/\S*/scripts/", "scripts/", text)
    text = re.sub(r'"(lsn|time_ms|bytes|ms)":[\d.]+', r'"\1":N', text)
    text = re.sub(r"pid \d+", "pid N", text)
    text = re.sub(r"time=[\dTZ:.-]+", "time=T", text)
    text = re.sub(r"/\S*/(\w+(\.db)?)$", r"DIR/\1", text, flags=re.M)
    text = re.sub(r"\bnode[23]\b", "node2|3", text)
    lines, rows = [], []
    for line in text.splitlines():
        cells = line.split()
        if len(cells) == 13 and cells[0].startswith("node"):
            rows.append(" ".join(normal_row(cells)))
        elif cells and cells[0] not in ("make", "autoreconf", "configure", "installing"):
            lines.append(" ".join(cells))
    return "\n".join(lines + sorted(rows))


def run_step(command, c, directory):
    done = subprocess.run(["bash", "-c", command], cwd=directory, env=c.environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=60 * c.ctx.slow)
    return done.stdout


def checkout(c):
    """A directory that looks like a checkout that has been built; its cluster is not afraid of a busy machine."""
    directory = os.path.join(c.ctx.directory, "checkout")
    c.data_dir = os.path.join(directory, "data")
    os.makedirs(c.data_dir)
    os.symlink(os.path.join(c.ctx.source_dir, "scripts"), os.path.join(directory, "scripts"))
    os.symlink(c.ctx.build_dir, os.path.join(directory, "build"))
    c.config["heartbeat"] = {"interval_ms": 100, "misses": 30}
    c.write_config()
    return directory


@scenario(start=False, timeout_s=120, quick=False)
def tour_of_the_readme_shows_what_is_printed(ctx):
    c = ctx.cluster(replicas=2)
    directory = checkout(c)
    steps = session(read_document(c, "README.md"))
    assert len(steps) >= 8, steps
    functions = ""
    for command, printed in steps:
        command, printed = place(command, c), normal(place(printed, c))
        if re.match(r"\w+\(\)", command):
            functions += command + "\n"
            continue
        looks_only = "SELECT" in command or re.match(r"\S+ status ", command)
        give_up = time.monotonic() + 20 * ctx.slow
        got = normal(run_step(functions + command, c, directory))
        while got != printed and looks_only and time.monotonic() < give_up:
            time.sleep(0.05)
            got = normal(run_step(functions + command, c, directory))
        assert got == printed, "$ %s\nprinted:\n%s\ncame:\n%s" % (command, printed, got)


def test_is_there(c, room, name):
    """room: "failover" for a scenario of test_failover.py, "test_wal.c" for a test of that program."""
    folder, file, form = ("unit", room, r"^static void %s\(void\)$") if room.endswith(".c") else (
        "integration", "test_%s.py" % room, r"^def %s\(")
    path = os.path.join("tests", folder, file)
    if not os.path.exists(os.path.join(c.ctx.source_dir, path)):
        return False
    return re.search(form % name, read_document(c, path), re.M) is not None


@scenario(start=False, quick=False)
def tests_named_in_the_guarantees_exist(ctx):
    c = ctx.cluster()  # never started
    text = read_document(c, "docs/guarantees.md")
    named = re.findall(r"`(\w+|test_\w+\.c)/(\w+)`", text)
    assert len(named) > 100, len(named)
    missing = sorted({"%s/%s" % n for n in named if not test_is_there(c, *n)})
    assert not missing, "docs/guarantees.md names tests that are not there: %s" % missing
    files = re.findall(r"`(tests/[\w/]+\.\w+)`", text)
    gone = [f for f in files if not os.path.exists(os.path.join(c.ctx.source_dir, f))]
    assert files and not gone, "docs/guarantees.md names files that are not there: %s" % gone
    accidents = text.split("## Accidents of others")[1]
    rows = [line for line in accidents.splitlines() if line.startswith("| ")][1:]
    bare = [r for r in rows if "`" not in r]
    assert len(rows) >= 38 and not bare, (len(rows), bare)


@scenario(start=False, timeout_s=120, quick=False)
def backup_chapter_of_the_operations_page_shows_what_is_printed(ctx):
    c = ctx.cluster(replicas=2)
    directory = checkout(c)
    c.config["archive"] = {"dir": os.path.join(directory, "archive"), "interval_ms": 50}
    c.write_config()
    c.start()
    c.wait_converged()
    text = read_document(c, "docs/operations.md")
    steps = session(text[text.index("## Backup and restore"):])
    assert len(steps) >= 8, steps
    functions = ""
    for command, printed in steps:
        command, printed = place(command, c), normal(printed)
        if re.match(r"\w+\(\)", command):
            functions += command + "\n"
            continue
        c.wait_converged()
        give_up = time.monotonic() + 20 * ctx.slow
        got = normal(run_step(functions + command, c, directory))
        while got != printed and " restore " in command and time.monotonic() < give_up:  # what it needs is not archived yet
            time.sleep(0.05)
            got = normal(run_step(functions + command, c, directory))
        assert got == printed, "$ %s\nprinted:\n%s\ncame:\n%s" % (command, printed, got)
    assert os.path.exists(os.path.join(directory, "tuesday.db"))


def log_lines(text):
    """In any order, for they are of several processes; without durations."""
    return sorted(re.sub(r"\bms=[\d.]+", "ms=N", line) for line in text.splitlines())


@scenario(start=False, timeout_s=60, quick=False)
def following_chapter_of_the_operations_page_shows_what_is_printed(ctx):
    c = ctx.cluster(replicas=2)
    directory = checkout(c)
    c.config["logging"] = {"level": "debug"}
    c.write_config()
    c.start()
    c.wait_converged()
    text = read_document(c, "docs/operations.md")
    (curl, answer), *greps = session(text[text.index("## Following one request"):text.index("## Recipes")])
    got = json.loads(run_step(place(curl, c), c, directory))
    assert differs(json.loads(answer), got) is None, (answer, got)
    assert len(greps) == 2, greps
    for command, printed in greps:
        command, printed = (place(t, c).replace("lsn=3", "lsn=%d" % got["lsn"]) for t in (command, printed))
        c.wait(lambda say=command, want=log_lines(printed): log_lines(run_step(say, c, directory)) == want, 20,
               "what is printed behind $ %s: %s" % (command, printed))


@scenario(start=False, timeout_s=60, quick=False)
def tokens_chapter_of_the_operations_page_shows_what_is_printed(ctx):
    c = ctx.cluster(replicas=2)
    directory = checkout(c)
    c.start()
    text = read_document(c, "docs/operations.md")
    steps = session(text[text.index("## Tokens"):text.index("## Logs")])
    assert len(steps) >= 4, steps
    for command, printed in steps:
        got = [re.sub(r"\d{4}-[\dT:.-]+Z", "TIME", re.sub(r"\b[0-9a-f]{12}\b", "ID", t))
               for t in (printed, run_step(command, c, directory).rstrip("\n"))]
        assert [" ".join(line.split()) for line in got[0].splitlines()] == [
            " ".join(line.split()) for line in got[1].splitlines()], "$ %s\nprinted:\n%s\ncame:\n%s" % (command, *got)
    with open(os.path.join(directory, "grafana.token"), encoding="utf-8") as f:
        assert c.client().request("GET", "/metrics", token=f.read().strip()).http == 200


@scenario(start=False, quick=False)
def tests_named_on_the_security_page_exist(ctx):
    c = ctx.cluster()  # never started
    named = re.findall(r"`(\w+|test_\w+\.c)/(\w+)`", read_document(c, "docs/security.md").split("## Promised")[1])
    assert len(named) > 12, named
    missing = sorted({"%s/%s" % n for n in named if not test_is_there(c, *n)})
    assert not missing, "docs/security.md names tests that are not there: %s" % missing


@scenario(start=False, quick=False)
def certificates_of_the_manual(ctx):
    """docs/operations.md, TLS: the script makes what it says, and the line that it prints serves HTTPS."""
    c = ctx.cluster(replicas=0)
    text = read_document(c, "docs/operations.md").split("## TLS\n")[1].split("\n## ")[0]
    language, words, body = blocks(text)[0]
    assert language == "console"
    commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
    printed = [line for line in body.splitlines() if not line.startswith("$ ")]
    os.symlink(c.data_dir, os.path.join(ctx.directory, "data"))
    os.symlink(os.path.join(ctx.source_dir, "scripts"), os.path.join(ctx.directory, "scripts"))
    done = subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=ctx.directory, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1:] == printed, (done.stdout, done.stderr)
    c.config.update(json.loads("{%s}" % printed[0]))
    c.write_config()
    c.tls = ssl.create_default_context(cafile=os.path.join(c.data_dir, "certs", "ca.pem"))
    c.start()
    curl = subprocess.run(["curl", "-sS", "--cacert", "data/certs/ca.pem", "--resolve",
                           "db.example.org:%d:127.0.0.1" % c.port, "https://db.example.org:%d/ready" % c.port],
                          cwd=ctx.directory, capture_output=True, text=True, timeout=60, check=False)
    assert curl.returncode == 0 and '"ok"' in curl.stdout, curl
