#!/usr/bin/env python3
"""Runs the integration scenarios: real processes, real sockets, real signals.

    run.py --build-dir DIR [--filter PATTERN]… [--jobs N] [--quick] [--list]

Every scenario runs in a child process with a hard timeout and a scratch directory of its own; whatever it leaves
behind is killed and removed. Scenarios run --jobs at a time, those that share their file's cluster one after the other;
those that may take longest come first, so that none of them is what all the others' processors wait for at the end. One
line per scenario, the end of all logs where one fails (kept whole in DIR/integration-failures), at last "N passed, N
failed".
"""
import argparse
import ctypes
import faulthandler
import fnmatch
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback

PR_SET_PDEATHSIG = 1
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from cluster import Skip, kill_tagged, remove_directory  # noqa: E402
from harness import Context, build_preloaded, build_sanitizer  # noqa: E402


def find_scenarios(patterns, quick):
    """[(file name, module, [scenario])] of those wanted, in file order."""
    found = []
    for entry in sorted(os.listdir(HERE)):
        if not entry.startswith("test_") or not entry.endswith(".py"):
            continue
        module = importlib.import_module(entry[:-3])
        name = entry[len("test_"):-3]
        wanted = [s for s in getattr(module, "SCENARIOS", []) if (s["quick"] or not quick) and (
            not patterns or any(fnmatch.fnmatch("%s/%s" % (name, s["name"]), "*" + p + "*") for p in patterns))]
        if wanted:
            found.append((name, module, wanted))
    return found


def run_body(spec, ctx, shared):
    """Runs one scenario in this process; a dict with result, seconds and text."""
    started = time.monotonic()
    cluster = None
    try:
        if spec["shared"]:
            argument = shared
            shared.ctx.notes = ctx.notes
        elif spec["start"]:
            argument = cluster = ctx.cluster(replicas=spec["replicas"], settings=spec["settings"])
            cluster.start()
        else:
            argument = ctx
        spec["function"](argument, *spec["arguments"])
        (shared.ctx if spec["shared"] else ctx).check_logs()
        result, text = "pass", ""
    except Skip as e:
        result, text = "skip", str(e)
    except BaseException:  # whatever it is, it is this scenario's failure, and the next one shall run
        result = "fail"
        text = traceback.format_exc(limit=-4) + (shared.ctx if spec["shared"] else ctx).log_tails()
    return {"result": result, "seconds": time.monotonic() - started, "text": text, "notes": ctx.notes}


def child_main(spec, ctx, shared, fd, timeout_s):
    """A scenario's process: says how it went through fd. Never returns."""
    die_with_parent()
    os.setpgid(0, 0)
    trace = open(os.path.join(ctx.directory, "timeout.out"), "w")
    faulthandler.dump_traceback_later(timeout_s, file=trace)
    report = run_body(spec, ctx, shared)
    faulthandler.cancel_dump_traceback_later()
    with os.fdopen(fd, "w") as pipe:
        json.dump(dict(report, text=report["text"][:40000]), pipe)
    os._exit(0)


def die_with_parent():
    """This process is killed when the runner is, in whatever way; and Ctrl-C ends it instead of one scenario."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def read_report(fd, deadline):
    """What the child wrote, b"" when it died, None when the deadline passed."""
    data = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return data
        data += piece


def run_scenario(spec, ctx, shared, failures_dir, full_name):
    timeout_s = spec["timeout_s"] * ctx.slow
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        child_main(spec, ctx, shared, write_fd, timeout_s)
    os.close(write_fd)
    data = read_report(read_fd, time.monotonic() + timeout_s + 1)
    os.close(read_fd)
    if data is None:
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    watched = shared.ctx if spec["shared"] else ctx
    if not watched.clusters:  # made in the child: find its logs by where they must be
        watched = Context(ctx.build_dir, ctx.source_dir, ctx.directory, ctx.sanitizer)
        watched.clusters = [type("Place", (), {"data_dir": os.path.join(ctx.directory, d)})
                            for d in os.listdir(ctx.directory)]
    if data:
        report = json.loads(data)
    else:
        what = "timed out after %d s" % timeout_s if data is None else "its process died"
        report = {"result": "fail", "seconds": timeout_s, "notes": [], "text": what + "\n" + watched.log_tails()}
    kill_tagged(ctx.directory)
    if report["result"] == "fail":
        kept = os.path.join(failures_dir, full_name.replace("/", "."))
        shutil.rmtree(kept, ignore_errors=True)
        os.makedirs(kept)
        for path in watched.logs():
            shutil.copy(path, kept)
        with open(os.path.join(kept, "reason.txt"), "w") as f:
            f.write(report["text"])
    return report


def split_files(files):
    """[(file name, module, [(number, scenario)])] of what can run at the same time, the longest first: a file's scenarios
    that share its cluster, and each other one."""
    batches = []
    for name, module, wanted in files:
        numbered = list(enumerate(wanted))
        sharing = [item for item in numbered if item[1]["shared"]]
        batches += [(name, module, [item]) for item in numbered if not item[1]["shared"]]
        if sharing:
            batches.append((name, module, sharing))
    batches.sort(key=lambda batch: sum(spec["timeout_s"] for _, spec in batch[2]), reverse=True)
    return batches


def run_batch(name, module, numbered, root, options, out):
    """A batch's process: its scenarios one by one, one JSON line each into out."""
    shared = None
    for index, spec in numbered:
        full_name = "%s/%s" % (name, spec["name"])
        directory = os.path.join(root, "%s.%d" % (name, index))
        os.makedirs(directory)
        ctx = Context(options.build_dir, options.source_dir, directory, options.sanitizer)
        try:
            if spec["shared"] and shared is None:
                shared_dir = os.path.join(root, name + ".shared")
                os.makedirs(shared_dir)
                shared_ctx = Context(options.build_dir, options.source_dir, shared_dir, options.sanitizer)
                shared = shared_ctx.cluster(**getattr(module, "SHARED", {}))
                shared.start()
            report = run_scenario(spec, ctx, shared, options.failures_dir, full_name)
        except BaseException:  # the shared cluster did not start: the next scenario tries again
            text = traceback.format_exc(limit=-4)
            if shared is not None:
                text += shared.ctx.log_tails()
                shared.close()
                remove_directory(shared.ctx.directory)
                shared = None
            report = {"result": "fail", "seconds": 0.0, "text": text, "notes": []}
        remove_directory(directory)
        out.write(json.dumps(dict(report, name=full_name)) + "\n")
        out.flush()
    if shared is not None:
        report = stop_shared(shared, name)
        if report is not None:
            out.write(json.dumps(report) + "\n")
            out.flush()
        remove_directory(shared.ctx.directory)


def stop_shared(shared, name):
    """The orderly end of a file's cluster, where leaks are reported; a failure is a scenario of its own."""
    try:
        shared.stop()
        shared.ctx.check_logs()
        return None
    except BaseException:
        text = traceback.format_exc(limit=-4) + shared.ctx.log_tails()
        return {"result": "fail", "seconds": 0.0, "text": text, "notes": [], "name": name + "/(stop of its cluster)"}
    finally:
        shared.close()


def print_report(report, counts):
    counts[report["result"]] += 1
    label = {"pass": "ok  ", "fail": "FAIL", "skip": "SKIP"}[report["result"]]
    notes = ["%.1f s" % report["seconds"]] + report["notes"]
    if report["result"] == "skip":
        notes.append(report["text"])
    print("%s %s (%s)" % (label, report["name"], "; ".join(notes)), flush=True)
    if report["result"] == "fail":
        print("\t" + report["text"].rstrip().replace("\n", "\n\t"), flush=True)


def run_batches(batches, root, options):
    """Forks a process per batch, options.jobs at a time, and prints what they report."""
    counts = {"pass": 0, "fail": 0, "skip": 0}
    waiting, running = list(batches), {}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            name, module, numbered = waiting.pop(0)
            read_fd, write_fd = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(read_fd)
                die_with_parent()
                with os.fdopen(write_fd, "w") as out:
                    run_batch(name, module, numbered, root, options, out)
                os._exit(0)
            os.close(write_fd)
            running[read_fd] = {"pid": pid, "left": len(numbered), "data": b"", "name": name}
        for fd in select.select(list(running), [], [], 1.0)[0]:
            batch = running[fd]
            piece = os.read(fd, 65536)
            *lines, batch["data"] = (batch["data"] + piece).split(b"\n")
            for line in lines:
                batch["left"] -= 1
                print_report(json.loads(line), counts)
            if not piece:
                os.waitpid(batch["pid"], 0)
                os.close(fd)
                for _ in range(batch["left"]):
                    print_report({"result": "fail", "seconds": 0.0, "notes": [], "name": batch["name"] + "/?",
                                  "text": "the runner's process of this batch died"}, counts)
                del running[fd]
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build-dir", default=os.environ.get("GRIZZLY_BUILD_DIR", "build"))
    parser.add_argument("--filter", action="append", default=[], metavar="PATTERN",
                        help="only file/scenario names that contain it; * and ? as in file names; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="scenarios that run at the same time (1)")
    parser.add_argument("--quick", action="store_true", help="leave out the scenarios marked as long")
    parser.add_argument("--list", action="store_true", help="print the names only")
    options = parser.parse_args()
    files = find_scenarios(options.filter, options.quick)
    if options.list:
        for name, _, wanted in files:
            print("\n".join("%s/%s" % (name, s["name"]) for s in wanted))
        return 0
    options.build_dir = os.path.abspath(options.build_dir)
    options.source_dir = os.path.dirname(os.path.dirname(HERE))
    if not os.access(os.path.join(options.build_dir, "grizzly-supervisor"), os.X_OK):
        print("no grizzly-supervisor in %s: build first, or say --build-dir" % options.build_dir, file=sys.stderr)
        return 2
    options.sanitizer = build_sanitizer(options.build_dir)
    options.failures_dir = os.path.join(options.build_dir, "integration-failures")
    if not options.sanitizer:  # every process, whatever started it
        library = os.path.join(options.build_dir, "closes.so")
        build_preloaded(os.path.join(HERE, "closes.c"), library)
        os.environ["LD_PRELOAD"] = library
    root = tempfile.mkdtemp(prefix="gz-")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main_pid = os.getpid()
    try:
        counts = run_batches(split_files(files), root, options)
    finally:
        if os.getpid() == main_pid:
            remove_directory(root)
    print("%d passed, %d failed" % (counts["pass"], counts["fail"]))
    if counts["pass"] + counts["fail"] + counts["skip"] == 0:
        print("no scenario matches the filter", file=sys.stderr)
        return 1
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
