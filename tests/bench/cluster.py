"""A cluster of real processes for the benchmarks: start, ask, break, stop. Used by bench.py only."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time


class BenchError(Exception):
    pass


class Client:
    """One keep-alive connection, blocking, with as little between the caller and the socket as Python allows."""

    def __init__(self, address, token, timeout_s=60.0, ca_file=None):
        host, port = address.rsplit(":", 1)
        self.tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self.address = (host, int(port))
        self.token = token
        self.timeout_s = timeout_s
        self.sock = None

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def connect(self):
        self.sock = socket.create_connection(self.address, self.timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.address[0])

    def request(self, method, path, body=b""):
        """Returns (status, body). Raises OSError when the connection breaks; the next call connects again."""
        try:
            if self.sock is None:
                self.connect()
            head = "%s %s HTTP/1.1\r\nHost: %s:%d\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (
                method, path, *self.address, self.token, len(body))
            self.sock.sendall(head.encode() + body)
            return self._read_answer()
        except OSError:
            self.close()
            raise

    def _read_answer(self):
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, data = data.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks(data)
        else:
            want = int(headers.get("content-length", "0"))
            while len(data) < want:
                data += self._receive()
            body = data
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split()[1]), body

    def _read_chunks(self, data):
        body = b""
        while True:
            while b"\r\n" not in data:
                data += self._receive()
            size_text, data = data.split(b"\r\n", 1)
            size = int(size_text.split(b";")[0], 16)
            while len(data) < size + 2:
                data += self._receive()
            if size == 0:
                return body
            body += data[:size]
            data = data[size + 2:]

    def _receive(self):
        piece = self.sock.recv(1 << 16)
        if not piece:
            raise ConnectionResetError("closed by the server")
        return piece

    def query(self, sql, params=None, **more):
        request = {"sql": sql, **more}
        if params is not None:
            request["params"] = params
        return self.post(request)

    def post(self, request):
        status, body = self.request("POST", "/query", json.dumps(request).encode())
        try:
            answer = json.loads(body)
        except ValueError:
            raise BenchError("answer %d is not JSON: %r" % (status, body[:200])) from None
        if status != 200 or answer.get("status") != "ok":
            raise BenchError("%d: %s" % (status, body[:300].decode("utf-8", "replace")))
        return answer


class Cluster:
    def __init__(self, build_dir, data_dir, http_port, replicas=2, settings=None, ca_file=None):
        self.supervisor_path = os.path.join(build_dir, "grizzly-supervisor")
        self.data_dir = data_dir
        self.http_port = http_port
        self.replicas = replicas
        self.settings = settings  # keys of cluster.json for the first start
        self.ca_file = ca_file  # not None: it is asked over HTTPS
        self.endpoint = "127.0.0.1:%d" % http_port
        self.token_file = os.path.join(data_dir, "token")
        self.supervisor = None
        self.start_seconds = 0.0

    def start(self):
        os.makedirs(self.data_dir, exist_ok=True)
        more = []
        if self.settings:
            more = ["--config", os.path.join(self.data_dir, "bench-settings.json")]
            with open(more[1], "w", encoding="ascii") as f:
                json.dump(self.settings, f)
        began = time.monotonic()
        with open(os.path.join(self.data_dir, "bench-supervisor.log"), "ab") as log:
            self.supervisor = subprocess.Popen(
                [self.supervisor_path, "run", "--data-dir", self.data_dir, "--http-port", str(self.http_port),
                 "--replicas", str(self.replicas), *more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = began + 60
        while True:
            if self.supervisor.poll() is not None:
                raise BenchError("the supervisor ended with %d, see %s" % (self.supervisor.returncode, log.name))
            try:
                self.client(5.0).query("CREATE TABLE IF NOT EXISTS started(id INTEGER PRIMARY KEY)")
                break
            except (OSError, BenchError) as e:
                if time.monotonic() > deadline:
                    raise BenchError("no write within 60 s of the start: %s" % e) from None
                time.sleep(0.005)
        self.start_seconds = time.monotonic() - began
        self.wait_whole()

    def token(self):
        with open(self.token_file, encoding="utf-8") as f:
            return f.read().strip()

    def client(self, timeout_s=60.0, address=None):
        return Client(address or self.endpoint, self.token(), timeout_s, self.ca_file)

    def status(self):
        done = subprocess.run([self.supervisor_path, "status", "--data-dir", self.data_dir, "--json"],
                              capture_output=True, check=False, timeout=20)
        if done.returncode != 0:
            raise BenchError("status: exit %d: %s" % (done.returncode, done.stderr.decode()))
        return json.loads(done.stdout)

    def wait_whole(self, timeout_s=60.0):
        """Waits until there is a master and every node is up and has everything committed."""
        deadline = time.monotonic() + timeout_s
        last = None
        while time.monotonic() < deadline:
            try:
                last = self.status()
            except (BenchError, ValueError, subprocess.TimeoutExpired) as e:
                last = str(e)
                time.sleep(0.05)
                continue
            nodes = last["nodes"]
            top = max((n["committed_lsn"] or 0 for n in nodes), default=0)
            if (last.get("master") and len(nodes) == self.replicas + 1
                    and all(n["state"] == "up" and (n["applied_lsn"] or 0) >= top for n in nodes)):
                return last
            time.sleep(0.02)
        raise BenchError("the cluster did not become whole: %s" % json.dumps(last))

    def master(self):
        status = self.status()
        return next(n for n in status["nodes"] if n["id"] == status["master"])

    def replica_nodes(self):
        status = self.status()
        return [n for n in status["nodes"] if n["id"] != status["master"]]

    def pids(self):
        return {"supervisor": self.supervisor.pid, **{n["id"]: n["pid"] for n in self.status()["nodes"]}}

    def stop(self):
        if self.supervisor is None:
            return
        pids = []
        try:
            pids = [n["pid"] for n in self.status()["nodes"] if n["pid"]]
        except (BenchError, ValueError, subprocess.TimeoutExpired):
            pass
        subprocess.run([self.supervisor_path, "stop", "--data-dir", self.data_dir], check=False, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.supervisor.wait(20)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()
            self.supervisor.wait()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.supervisor = None


def cpu_seconds(pids):
    """CPU time that the processes have used so far, by name."""
    out = {}
    for name, pid in pids.items():
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        out[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return out


def memory_kib(pid):
    """(RSS, PSS) of a process."""
    rss = pss = 0
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith("Rss:"):
                rss = int(line.split()[1])
            elif line.startswith("Pss:"):
                pss = int(line.split()[1])
    return rss, pss
