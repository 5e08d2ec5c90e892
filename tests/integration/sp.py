"""NNG's wire protocol by hand, and this project's messages in it: what a peer needs that keeps to no rule but the framing.

A connection begins with eight bytes each way, 00 'S' 'P' 00 and the protocol's number; then come messages, each behind its
length as 64 bits big-endian (on ipc:// behind another byte, 1). The messages are common/wire/wire.h's.
"""
import socket
import struct

PUSH, PULL, REQ, REP = 0x50, 0x51, 0x30, 0x31
HELLO, START, RECORDS, COMMIT, SNAPSHOT_BEGIN = 1, 2, 3, 4, 5
POSITION, ACK = 16, 17
HEARTBEAT, SET_TERM, PROMOTE, DRAIN, CLI_REQUEST, CLI_REPLY = 32, 33, 34, 35, 64, 65


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<I", len(s)) + s


def u64(*values):
    return struct.pack("<%dQ" % len(values), *values)


def message(kind, cluster, term, body=b"", sender="node1", version=3):
    return struct.pack("<IHH", 0x314D7A47, version, kind) + cluster + u64(term) + text(sender) + body


def hello(cluster, term, stream, ack_address, sender="node1", http_address="127.0.0.1:1"):
    return message(HELLO, cluster, term, u64(stream) + text(ack_address) + text(http_address) + u64(0), sender)


class Head:
    """The fields that every message has; raises what struct raises when it is none."""

    def __init__(self, raw):
        magic, self.version, self.kind = struct.unpack_from("<IHH", raw)
        assert magic == 0x314D7A47, raw[:16]
        self.cluster = raw[8:24]
        self.term, length = struct.unpack_from("<QI", raw, 24)
        self.sender = raw[36:36 + length].decode()
        self.body = raw[36 + length:]


class Peer:
    """One connection. address: a port of 127.0.0.1, or the path of a socket. protocol: ours; None: no handshake."""

    def __init__(self, address, protocol=PUSH, timeout_s=10.0):
        self.ipc = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if self.ipc else socket.AF_INET)
        self.socket.settimeout(timeout_s)
        self.socket.connect(address if self.ipc else ("127.0.0.1", address))
        if protocol is not None:
            self.shake(protocol)

    @classmethod
    def accepted(cls, connection, protocol, timeout_s=10.0):
        """The same for a connection that came to us."""
        peer = cls.__new__(cls)
        peer.ipc, peer.socket = False, connection
        connection.settimeout(timeout_s)
        peer.shake(protocol)
        return peer

    def shake(self, protocol):
        self.socket.sendall(b"\0SP\0" + struct.pack(">HH", protocol, 0))
        answer = self.read(8)
        assert answer[:4] == b"\0SP\0", answer

    def raw(self, data):
        """Sends bytes as they are. False: the other side has hung up."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def announce(self, length):
        return self.raw((b"\1" if self.ipc else b"") + struct.pack(">Q", length & 0xFFFFFFFFFFFFFFFF))

    def send(self, body):
        return self.raw((b"\1" if self.ipc else b"") + struct.pack(">Q", len(body)) + body)

    def read(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise ConnectionResetError("the peer has hung up")
            data += piece
        return data

    def receive(self):
        if self.ipc:
            self.read(1)
        return self.read(struct.unpack(">Q", self.read(8))[0])

    def hung_up(self):
        """Waits until the other side hangs up; what it still says is dropped."""
        try:
            while self.socket.recv(65536):
                pass
        except socket.timeout:
            return False
        except OSError:
            pass
        return True

    def close(self):
        self.socket.close()


def request(body, number=0x80000001):
    """A REQ message: the request's number, the last one with its high bit set, then the body."""
    return struct.pack(">I", number) + body
