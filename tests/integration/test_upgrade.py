"""Upgrading a cluster that is being written to, one process at a time: this build and its successor side by side.

The successor is this build again but for the objects that know versions: it calls itself 99.0, and speaks the next minor
version of the protocol, that is each of its messages has a field more. Up and down again nothing may be noticed. "Newer formats" is the successor with its
log files of a newer version as well: there is no way back from these, which must be said and must harm nothing.

GRIZZLY_OLD_COMMIT=REVISION: the upgrade also from a build of that revision (where the sources are a git repository).
"""
import fcntl
import os
import shutil
import subprocess
import time

from harness import scenario
from load import Load

PROGRAMS = ("grizzly-master", "grizzly-replica", "grizzly-supervisor")
SOURCES = ("common", "master", "node", "replica", "supervisor")
BUILD_FILES = ("Makefile", "config.status", "config.h", "stamp-h1", ".dirstamp", *PROGRAMS)
OTHERS_VERSION = "99.0"


def run(words, directory, **more):
    done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **more)
    assert done.returncode == 0, "%s: exit %d\n%s" % (" ".join(words), done.returncode, done.stdout[-3000:])
    return done.stdout


def copy_build(ctx, build):
    """The build directory again, to build in: objects as new as they are there, and depending on their sources alone."""
    in_tree = os.path.realpath(ctx.build_dir) == os.path.realpath(ctx.source_dir)
    for path, folders, files in os.walk(ctx.build_dir):
        below = os.path.relpath(path, ctx.build_dir)
        folders[:] = [f for f in folders if f not in (".git", "upgrade", "autom4te.cache")]
        os.makedirs(os.path.join(build, below), exist_ok=True)
        for name in files:
            source, copy = os.path.join(path, name), os.path.join(build, below, name)
            if name.endswith(".Po"):
                with open(copy, "w", encoding="utf-8") as f:
                    f.write("# its sources alone\n")
            elif in_tree and below == "." or name in BUILD_FILES or name.endswith((".o", ".a", ".h", ".am", ".in")) or (
                    in_tree and name.endswith(".c")):
                shutil.copy2(source, copy)


def remake(ctx, build, macros):
    """The programs anew, with macros defined, from the objects of sources that look at one of them or at the version."""
    words = ["PACKAGE_VERSION", *(m.split("=")[0] for m in macros)]
    for folder in SOURCES:
        for path, _, files in os.walk(os.path.join(ctx.source_dir, folder)):
            for name in files:
                with open(os.path.join(path, name), encoding="utf-8", errors="replace") as f:
                    text = f.read()
                stale = name.endswith(".c") and any(w in text for w in words)
                made = os.path.join(build, os.path.relpath(path, ctx.source_dir), name[:-2] + ".o")
                if stale and os.path.exists(made):
                    os.unlink(made)
    for name in PROGRAMS:
        os.unlink(os.path.join(build, name))
    in_tree = os.path.realpath(ctx.build_dir) == os.path.realpath(ctx.source_dir)
    source = "." if in_tree else os.path.realpath(ctx.source_dir)
    make(build, *(w + "=" + source for w in ("srcdir", "top_srcdir", "VPATH") if not in_tree),
         "CPPFLAGS=" + " ".join("-D" + m for m in macros))


def configure(source, build):
    os.makedirs(build)
    run([os.path.join(source, "configure"), "--disable-dependency-tracking", "CFLAGS=-O0"], build)


def make(build, *assignments):
    run(["make", "-s", "-j2", *assignments, *PROGRAMS], build, timeout=600)


def take(build, place):
    """Copies of the programs, in a directory of their own."""
    os.makedirs(place, exist_ok=True)
    for name in PROGRAMS:
        shutil.copy2(os.path.join(build, name), os.path.join(place, name + ".new"))
        os.rename(os.path.join(place, name + ".new"), os.path.join(place, name))


def build_successors(ctx, place):
    build = os.path.join(place, "build")
    copy_build(ctx, build)
    header = os.path.join(build, "config.h")
    with open(header, encoding="utf-8") as f:
        lines = ['#define PACKAGE_VERSION "%s"\n' % OTHERS_VERSION if line.startswith("#define PACKAGE_VERSION ") else line
                 for line in f]
    with open(header, "w", encoding="utf-8") as f:
        f.writelines(lines)
    remake(ctx, build, ["WIRE_MINOR=2u"])
    take(build, os.path.join(place, "successor"))
    remake(ctx, build, ["WIRE_MINOR=2u", "SEGMENT_VERSION=2u"])
    take(build, os.path.join(place, "newer-formats"))


def successors(ctx):
    """The directory with the other builds' programs; made once, of the sources as they are."""
    place = os.path.join(ctx.build_dir, "tests", "integration", "upgrade")
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(place, "newer-formats", "grizzly-supervisor")
        ours = os.path.getmtime(os.path.join(ctx.build_dir, "grizzly-supervisor"))
        if not os.path.exists(stamp) or os.path.getmtime(stamp) < ours:
            started = time.monotonic()
            shutil.rmtree(os.path.join(place, "build"), ignore_errors=True)
            build_successors(ctx, place)
            shutil.rmtree(os.path.join(place, "build"))
            for name in PROGRAMS:
                os.utime(os.path.join(place, "newer-formats", name))
            ctx.note("the other builds took %.0f s" % (time.monotonic() - started))
    return place


def install(c, directory):
    """As a package manager does it: each program is replaced by a rename, what runs keeps its old file."""
    take(directory, os.path.dirname(c.supervisor_bin))


def cluster(ctx, first, **settings):
    c = ctx.cluster(replicas=2, settings=settings)
    c.supervisor_bin = os.path.join(ctx.directory, "bin", "grizzly-supervisor")
    install(c, first)
    return c.start()


def restart(c, what):
    """The data directory is named from where the command is given, as people do."""
    parent, name = os.path.split(c.data_dir)
    done = subprocess.run([c.supervisor_bin, "restart", what, "--data-dir", name], capture_output=True, text=True,
                          cwd=parent, env=c.environment(), check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def must_restart(c, what):
    code, out, err = restart(c, what)
    assert code == 0, "restart %s: exit %d: %s%s" % (what, code, out, err)
    return out


def versions(c):
    status = c.status()
    return [status["version"]] + [n["version"] for n in status["nodes"]]


def check_load(c, load):
    """What was acknowledged is there; nothing failed, nothing is in doubt."""
    load.stop()
    assert not load.errors and not load.unknown, (load.errors, len(load.unknown))
    load.verify()
    c.wait_converged()


def version_of(directory):
    return run([os.path.join(directory, "grizzly-supervisor"), "--version"], directory).split()[1]


def up_and_down(c, ours, other):
    """Each process by itself, as the manual says; then everything back in one go."""
    old, new = version_of(ours), version_of(other)
    load = Load(c, writers=4, keep_alive=False)
    load.wait_more(100)
    install(c, other)
    first = c.master()
    assert first == "node1" and versions(c) == [old] * 4, versions(c)
    assert "node2 runs %s, up after" % new in must_restart(c, "node2")
    assert versions(c) == [old, old, new, old], versions(c)
    shown = c.command("status").stdout
    assert "versions differ: supervisor %s, node1 %s, node2 %s, node3 %s\n" % (old, old, new, old) in shown, shown
    load.wait_more(100)
    must_restart(c, "node3")
    load.wait_more(100)
    assert c.command("switchover").returncode == 0 and c.master() != first
    load.wait_more(100)  # a new master, an old replica
    must_restart(c, "node1")
    load.wait_more(100)
    assert versions(c) == [old, new, new, new], versions(c)
    pids, supervisor = c.pids(), c.status()["supervisor_pid"]
    assert "the supervisor runs %s, and has taken over the nodes" % new in must_restart(c, "supervisor")
    assert c.pids() == pids and c.status()["supervisor_pid"] == supervisor, "the same processes"
    assert versions(c) == [new] * 4 and "versions differ" not in c.command("status").stdout
    load.wait_more(100)
    # Back: an old replica behind a new master, an old supervisor with new nodes' files.
    install(c, ours)
    must_restart(c, "supervisor")
    assert versions(c) == [old, new, new, new], versions(c)
    load.wait_more(100)
    said = must_restart(c, "all")
    assert said.count("runs %s" % old) == 4, said
    assert versions(c) == [old] * 4, versions(c)
    load.wait_more(100)
    c.ctx.note("longest gap %.0f ms" % load.longest_gap_ms())
    check_load(c, load)
    assert c.status()["failovers"] == 0, "planned all the way"
    c.stop()


@scenario(start=False, timeout_s=240, quick=False)
def cluster_goes_up_and_down_under_load_and_nobody_notices(ctx):
    other = os.path.join(successors(ctx), "successor")
    up_and_down(cluster(ctx, ctx.build_dir), ctx.build_dir, other)


@scenario(start=False, timeout_s=240, quick=False)
def newer_formats_are_refused_in_words_and_stay_whole(ctx):
    newer = os.path.join(successors(ctx), "newer-formats")
    c = cluster(ctx, ctx.build_dir, store={"segment_size_bytes": 65536, "checkpoint_bytes": 65536},
                log={"keep_bytes": 1048576, "max_bytes": 4194304})
    load = Load(c, writers=4, keep_alive=False)
    install(c, newer)
    must_restart(c, "all")
    assert versions(c) == [OTHERS_VERSION] * 4
    before = c.ok("CREATE TABLE big(v)")["lsn"]
    for _ in range(8):
        c.ok("INSERT INTO big VALUES (randomblob(50000))")
    c.wait_converged()
    install(c, ctx.build_dir)
    must_restart(c, "supervisor")
    replica = c.replicas()[0]
    code, _, said = restart(c, replica)
    assert code == 1 and "%s does not come up" % replica in said and "nothing else was restarted" in said, said
    node = c.node(replica)
    assert node["state"] == "down" and "written by a newer version" in node["last_end"], node
    with open(os.path.join(c.data_dir, "log", replica + ".log"), errors="replace") as f:
        assert "format 2, this program knows 1" in f.read()
    # The others refuse to follow, and serve on.
    code, _, said = restart(c, c.replicas()[1])
    assert code == 1 and "not every other voter is up" in said, said
    load.wait_more(100)
    assert not os.path.exists(os.path.join(c.data_dir, replica + ".damaged")), "newer is not damaged"
    install(c, newer)
    must_restart(c, "supervisor")
    c.wait_all_up()
    check_load(c, load)
    assert c.query("SELECT count(*) FROM big", min_lsn=before, consistency="session", node=replica).value == 8
    c.stop()


@scenario(timeout_s=60)
def restart_says_what_it_cannot_do(c):
    code, _, said = restart(c, "node7")
    assert code == 2 and "node7" in said, (code, said)
    assert restart(c, "")[0] == 2
    # A program that is none, and a configuration that the new one would refuse, change nothing.
    pids = c.pids()
    c.config["no_such_key"] = 1
    c.write_config()
    code, _, said = restart(c, "supervisor")
    assert code == 2 and "no_such_key" in said, (code, said)
    del c.config["no_such_key"]
    c.write_config()
    assert c.pids() == pids and c.status()["uptime_ms"] > 0
    load = Load(c, writers=2, keep_alive=False)
    load.wait_more(20)
    master = c.master()
    said = must_restart(c, master)  # hands over by itself
    assert "%s runs " % master in said and c.master() != master
    load.wait_more(20)
    check_load(c, load)
    replica = c.replicas()[0]
    c.freeze_pid(c.pid(c.replicas()[1]))
    c.wait(lambda: c.node(c.last_replicas[1])["state"] != "up", 20, "the frozen one to be missed")
    assert c.node(replica)["state"] == "up"


@scenario(timeout_s=60)
def supervisor_is_replaced_when_every_node_answers_the_new_one(c):
    c.freeze(c.replicas()[0])  # the new one finds it hung, and starts another
    must_restart(c, "supervisor")
    assert None not in versions(c), versions(c)


@scenario(replicas=0, timeout_s=60)
def single_node_is_restarted_with_a_pause(c):
    c.ok("CREATE TABLE t(v)")
    pid = c.pid("node1")
    must_restart(c, "node1")
    assert c.pid("node1") != pid
    c.wait_writable()
    must_restart(c, "all")
    c.wait_writable()
    assert c.query("SELECT count(*) FROM t").value == 0


@scenario(start=False, timeout_s=900)
def upgrade_from_an_older_commit(ctx):
    commit = os.environ.get("GRIZZLY_OLD_COMMIT")
    if not commit:
        ctx.skip("GRIZZLY_OLD_COMMIT names none")
    if not os.path.isdir(os.path.join(ctx.source_dir, ".git")) or ctx.sanitizer:
        ctx.skip("needs the sources' history, and no sanitizer")
    source, build = os.path.join(ctx.directory, "old-source"), os.path.join(ctx.directory, "old-build")
    run(["git", "clone", "-q", ctx.source_dir, source], ctx.directory)
    run(["git", "checkout", "-q", commit], source)
    run(["autoreconf", "-fi"], source)
    configure(source, build)
    make(build)
    with open(os.path.join(source, "supervisor", "command_line.c"), encoding="utf-8") as f:
        if "restart nodeN" not in f.read():
            ctx.skip("that one is from before clusters could be upgraded node by node")
    c = cluster(ctx, build)
    load = Load(c, writers=4, keep_alive=False)
    load.wait_more(100)
    install(c, ctx.build_dir)
    must_restart(c, "all")
    load.wait_more(100)
    check_load(c, load)
    c.stop()
