"""What a file of scenarios imports: the scenario decorator and the Context a scenario runs in."""
import glob
import os
import subprocess

from cluster import TAG, Cluster, Skip

SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "WARNING: ThreadSanitizer",
                   "AddressSanitizer:DEADLYSIGNAL", "Assertion `", "*** stack smashing", "double free or corruption",
                   "closed what is not open: descriptor")


def scenario(timeout_s=60, shared=False, start=True, replicas=2, settings=None, quick=True, cases=None):
    """Registers a function(c) in its module's SCENARIOS; c is a started Cluster, with start=False a Context.

    shared: c is the one cluster of the file (the module's SHARED: keyword arguments of Cluster). cases: {suffix:
    arguments}, one scenario per entry, called as function(c, *arguments). quick=False: left out of --quick runs, which
    are those under AddressSanitizer: for what has nothing of our C code do what another scenario has not had it do (texts
    and scripts are looked at, a build is made, the same is done more often, another parameter is given), or finds by its
    length what a sanitizer does not look for. With cases also the suffixes of those that are kept.
    """
    def register(function):
        listing = function.__globals__.setdefault("SCENARIOS", [])
        variants = [("_" + suffix, arguments) for suffix, arguments in cases.items()] if cases else [("", ())]
        for suffix, arguments in variants:
            listing.append({"name": function.__name__ + suffix, "function": function, "arguments": arguments,
                            "timeout_s": timeout_s, "shared": shared, "start": start, "replicas": replicas,
                            "settings": settings, "quick": quick if isinstance(quick, bool) else suffix[1:] in quick})
        return function
    return register


def build_preloaded(source, library):
    """Compiles what is to be preloaded into processes; beside it first, for other runs may be about to use it."""
    fresh = "%s.%d" % (library, os.getpid())
    done = subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-D_GNU_SOURCE", "-o", fresh,
                           source, "-ldl"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "cannot build %s: %s" % (source, done.stderr)
    os.rename(fresh, library)


class Context:
    """Where one scenario runs and how patient it must be."""

    def __init__(self, build_dir, source_dir, directory, sanitizer):
        self.build_dir = build_dir
        self.source_dir = source_dir    # top of the source tree
        self.directory = directory      # scratch, removed afterwards; the tag of every process
        self.sanitizer = sanitizer      # "", "asan" or "tsan"
        self.slow = {"": 1, "asan": 3, "tsan": 6}[sanitizer]
        self.clusters = []
        self.notes = []

    def cluster(self, **options):
        c = Cluster(self, **options)
        self.clusters.append(c)
        return c

    def note(self, text):
        """Something worth a glance beside the scenario's name, a measured time say."""
        self.notes.append(text)

    def skip(self, reason):
        raise Skip(reason)

    def environment(self):
        e = dict(os.environ)
        e.pop("GRIZZLY_TOKEN", None)
        e[TAG] = self.directory
        e["GRIZZLY_BUILD_DIR"] = self.build_dir
        e["PATH"] = self.build_dir + os.pathsep + e.get("PATH", "")
        e.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
        e.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        suppressions = os.path.join(self.source_dir, "tests", "integration")
        e.setdefault("LSAN_OPTIONS", "print_suppressions=0:suppressions=" + os.path.join(suppressions, "lsan.supp"))
        e.setdefault("TSAN_OPTIONS", "halt_on_error=0 atexit_sleep_ms=0 suppressions=" + os.path.join(suppressions, "tsan.supp"))
        return e

    def logs(self):
        found = glob.glob(os.path.join(self.directory, "*.out"))
        for c in self.clusters:
            found += glob.glob(os.path.join(c.data_dir, "log", "*"))
        return sorted(f for f in set(found) if os.path.isfile(f))

    def check_logs(self):
        """A sanitizer's report or a failed assertion in any process fails the scenario, whatever it saw itself."""
        for path in self.logs():
            with open(path, errors="replace") as f:
                lines = f.read().splitlines()
            for i, line in enumerate(lines):
                if any(mark in line for mark in SANITIZER_MARKS):
                    raise AssertionError("%s:%d:\n%s" % (path, i + 1, "\n".join(lines[i:i + 40])))

    def log_tails(self, lines=12):
        parts = []
        for path in self.logs():
            with open(path, errors="replace") as f:
                tail = f.read().splitlines()[-lines:]
            if tail:
                parts.append("--- %s\n%s" % (os.path.basename(path), "\n".join(line[:300] for line in tail)))
        return "\n".join(parts)


def build_sanitizer(build_dir):
    """Which sanitizer grizzly-supervisor was built with."""
    path = os.path.join(build_dir, "grizzly-supervisor")
    libraries = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    if "libtsan" in libraries:
        return "tsan"
    return "asan" if "libasan" in libraries else ""
