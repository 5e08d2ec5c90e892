"""Servers that stand in for a node, and do what no node would."""
import json
import os
import signal
import socket
import threading

from cluster import wait_until


class Listener:
    """A listening socket on a free port of its own, or bound already; serve(socket) on a thread for each connection."""

    def __init__(self, listener=None):
        if listener is None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
        self.listener = listener
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        self.address = "127.0.0.1:%d" % self.port
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve_or_leave, args=(s,), daemon=True).start()

    def serve_or_leave(self, s):
        try:
            self.serve(s)
        except OSError:
            pass  # the other side has gone

    def close(self):
        self.listener.close()


class FakeNode(Listener):
    """Answers what the test says: answer(request number, socket) after a whole request has come, until it is false. Keeps the
    requests: (head, body as JSON)."""

    def __init__(self, answer, listener=None):
        self.answer = answer
        self.requests = []
        super().__init__(listener)

    def serve(self, s):
        received = b""
        with s:
            while True:
                while b"\r\n\r\n" not in received:
                    piece = s.recv(65536)
                    if not piece:
                        return
                    received += piece
                head, received = received.split(b"\r\n\r\n", 1)
                length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n")
                              if line.lower().startswith(b"content-length"))
                while len(received) < length:
                    received += s.recv(65536)
                body, received = received[:length], received[length:]
                self.requests.append((head.decode(), json.loads(body)))
                if not self.answer(len(self.requests), s):
                    return


class FakeMaster(FakeNode):
    """A FakeNode at the address of a master that is no more: its replicas still believe in it."""

    def __init__(self, c, answer):
        self.c, self.master, self.node = c, c.master(), c.replicas()[0]
        c.ok("CREATE TABLE IF NOT EXISTS fake(v)")
        c.query("SELECT 1", node=self.node).must()
        c.wait_converged()
        self.frozen = c.freeze("supervisor")
        os.kill(c.last_pids[self.master], signal.SIGKILL)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: self.bind(listener), 10, "the master's port to be free")
        super().__init__(answer, listener)

    def bind(self, listener):
        listener.bind(("127.0.0.1", self.c.node_port(self.master)))
        return True

    def headers(self, i):
        """Those of request i, names in lower case."""
        return {k.strip().lower(): v.strip() for k, v in
                (line.split(":", 1) for line in self.requests[i][0].split("\r\n")[1:])}

    def close(self):
        super().close()
        self.c.thaw(self.frozen)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
