"""HTTP as a client of the cluster speaks it: one kept-alive connection, and raw sockets for the impolite.

A Client belongs to one thread. Every method raises OSError or http.client.HTTPException when the connection
fails: what that means for a write (done, not done, unknown) is for the scenario to judge.
"""
import base64
import http.client
import json
import socket


class QueryFailed(AssertionError):
    """An answer that a scenario expected to be ok was not."""

    def __init__(self, answer):
        super().__init__("HTTP %s: %s" % (answer.http, answer.text[:500]))
        self.answer = answer


class Answer:
    """One HTTP answer; json is None when the body is not JSON."""

    def __init__(self, http_status, headers, body):
        self.http = http_status
        self.headers = headers
        self.body = body
        self.text = body.decode("utf-8", "replace")
        try:
            self.json = json.loads(self.text)
        except ValueError:
            self.json = None

    @property
    def ok(self):
        return self.http == 200 and isinstance(self.json, dict) and self.json.get("status") == "ok"

    @property
    def code(self):
        return self.json.get("code") if isinstance(self.json, dict) else None

    @property
    def message(self):
        return self.json.get("message", "") if isinstance(self.json, dict) else ""

    def must(self):
        if not self.ok:
            raise QueryFailed(self)
        return self.json

    @property
    def rows(self):
        return self.must()["rows"]

    @property
    def value(self):
        """The only value of the only row."""
        rows = self.rows
        assert len(rows) == 1 and len(rows[0]) == 1, "one value expected, got %r" % (rows,)
        return rows[0][0]

    def must_fail(self, http_status, code):
        assert self.json is not None, "not JSON: HTTP %s %r" % (self.http, self.body[:300])
        got = (self.http, self.json.get("status"), self.json.get("code"))
        assert got == (http_status, "error", code), "expected HTTP %s %s, got HTTP %s: %s" % (
            http_status, code, self.http, self.text[:500])
        assert isinstance(self.json.get("message"), str) and self.json["message"], "an error without a message"
        return self.json


def encode(value):
    """A Python value as it stands in a request: bytes become {"$blob": …}."""
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


class Client:
    """One connection, kept alive when keep_alive, opened when needed."""

    def __init__(self, host, port, token, timeout_s=30.0, keep_alive=True, tls=None):
        self.tls = tls                  # an ssl.SSLContext, or None for plain HTTP
        self.host, self.port, self.token = host, port, token
        self.timeout_s = timeout_s
        self.keep_alive = keep_alive
        self.connection = None

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(self, method, path, body=None, headers=None, token=True):
        """token: True sends the right one, a string sends that, None sends none."""
        sent = dict(headers or {})
        if token is True:
            token = self.token
        if token is not None:
            sent["Authorization"] = "Bearer " + token
        if isinstance(body, str):
            body = body.encode()
        if self.connection is None:
            if self.tls is None:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
            else:
                connection = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout_s, context=self.tls)
            connection.connect()
            self.connection = connection
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.connection.request(method, path, body=body, headers=sent)
            response = self.connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if not self.keep_alive or response.will_close:
            self.close()
        return answer

    def query(self, sql=None, params=None, statements=None, **more):
        """POST /query; more are further keys of the request."""
        request = {}
        if sql is not None:
            request["sql"] = sql
        if params is not None:
            request["params"] = encode(params)
        if statements is not None:
            request["statements"] = encode(statements)
        request.update(more)
        return self.request("POST", "/query", json.dumps(request))


def read_to_end(s):
    """All bytes that come on a socket until the other side closes it."""
    received = b""
    while True:
        try:
            piece = s.recv(1 << 20)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def raw_exchange(host, port, pieces, timeout_s=10.0):
    """Sends bytes pieces as they are and reads until the peer closes or timeout_s passes in silence."""
    received = b""
    with socket.create_connection((host, port), timeout=timeout_s) as s:
        try:
            for piece in pieces:
                s.sendall(piece)
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                received += piece
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            pass
    return received


def status_of(response):
    """The HTTP status of raw response bytes, None when there is none."""
    line = response.split(b"\r\n", 1)[0].split(b" ")
    return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") and line[1].isdigit() else None
