"""Drives a link as the balancer's loop does, and serves it real providers: websockets' server, or a bare socket."""

import base64
import contextlib
import hashlib
import json
import select
import selectors
import socket
import ssl
import threading
import time

import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from tests.waiting import until
from tradebal.config import Feed, Secret
from tradebal.router.interface import EventKind, Status
from tradebal.router.pure import Router
from tradebal.upstream.link import Link, Phase

KEY = "PKTEST-c0ffee/42"


class Owner:
    """A balancer reduced to its upstream side; its clock can be moved forward."""

    def __init__(self, feed, key=KEY, **options):
        self.link = Link(feed, Secret(key) if key else None, self, **options)
        self.router = Router(1, self.link.profile.rule)
        self.ahead = 0.0
        self.happened = []
        self.events = []
        self.outages = []
        self.must_read = False
        self.reading = True

    def opened(self):
        self.happened.append("opened")
        self.router.reset()
        self.must_read = True

    def live(self):
        self.happened.append("live")

    def outage(self, from_ns, until_ns):
        self.happened.append("outage")
        self.outages.append((from_ns, until_ns))

    def closed(self):
        self.happened.append("closed")

    def now(self):
        return time.monotonic() + self.ahead

    def start(self):
        self.link.start(self.now())
        return self

    def advance(self, seconds):
        self.ahead += seconds

    def turn(self):
        poll = select.poll()
        for fd, mask in self.link.fds():
            read = select.POLLIN if mask & selectors.EVENT_READ and self.reading else 0
            poll.register(fd, read | (select.POLLOUT if mask & selectors.EVENT_WRITE else 0))
        poll.poll(min(5, max(0, 1000 * (self.link.next_deadline() - self.now()))))
        if self.link.connection is not None and self.reading:
            self.read()
        self.link.tick(self.now())
        if self.must_read and self.link.connection is not None:
            self.must_read = False
            self.read()

    def read(self):
        while self.link.connection is not None:
            try:
                count = self.link.connection.receive_into(self.router.space())
            except BlockingIOError:
                return
            except OSError as error:
                self.link.on_closed(self.now(), error)
                return
            if count == 0:
                self.link.on_closed(self.now())
                return
            self.router.received(count)
            self.process()

    def process(self):
        while True:
            status = self.router.process()
            self.link.on_data(self.now(), self.router.counters().trades)
            if status is not Status.EVENT:
                return
            event = self.router.event()
            self.events.append(event)
            self.link.on_event(event, self.now())

    def run_until(self, condition, what, timeout=20.0):
        def step():
            self.turn()
            return condition()

        return until(step, what, timeout)

    def run_until_phase(self, phase):
        self.run_until(lambda: self.link.phase is phase, f"phase {phase}, not {self.link.phase}")

    def run_until_lost(self, reason):
        """Run until something was lost for this reason, and the connection is gone."""
        self.run_until(
            lambda: self.link.disconnects[reason] and self.link.connection is None,
            f"a loss for {reason}, not {self.losses()}",
        )

    def losses(self):
        return {reason: count for reason, count in self.link.disconnects.items() if count}

    def trades(self):
        return bytes(self.router.pending(0)).splitlines()

    def stop(self):
        self.link.stop(self.now())
        self.run_until_phase(Phase.STOPPED)

    def messages(self):
        return [event.data for event in self.events if event.kind is EventKind.MESSAGE]


def feed(url, profile="massive", **options):
    defaults = {"connect_timeout": 10.0, "login_timeout": 10.0}
    return Feed(profile=profile, url=url, **defaults | options)


@contextlib.contextmanager
def owner(url, profile="massive", *, key=KEY, **options):
    """A started owner of a link to the URL, which lets go of everything at the end."""
    made = Owner(feed(url, profile, **options), key)
    try:
        yield made.start()
    finally:
        made.link.close()


@contextlib.contextmanager
def provider(dialogue, *, tls=None, path="/stocks", host="127.0.0.1", **options):
    """Serve `dialogue(connection)` to each client by the websockets package; yield the URL.

    The dialogue ends by returning (close code 1000) or with its connection.
    """
    failed = []

    def handler(connection):
        try:
            dialogue(connection)
        except ConnectionClosed:
            pass
        except Exception as error:
            failed.append(error)

    with serve(handler, host, 0, ssl=tls, **options) as server:
        port = server.socket.getsockname()[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            place = f"[{host}]" if ":" in host else host
            yield f"{'wss' if tls else 'ws'}://{place}:{port}{path}"
        finally:
            server.shutdown()
            thread.join()
    assert not failed, failed


@contextlib.contextmanager
def raw_server(*scripts, tls=None, host="127.0.0.1", path="/stocks"):
    """Give the n-th client to `scripts[n]` (the last one serves all further ones); yield the URL."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    clients = []
    threads = []
    ended = threading.Event()

    def run(script, client):
        with contextlib.suppress(OSError):
            if tls:
                client = tls.wrap_socket(client, server_side=True)
                clients.append(client)
            script(client)
        client.close()

    def accept():
        for number in range(1000):
            client, _ = listener.accept()
            if ended.is_set():
                client.close()
                return
            clients.append(client)
            thread = threading.Thread(target=run, args=(scripts[min(number, len(scripts) - 1)], client))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    place = f"[{host}]" if ":" in host else host
    try:
        yield f"{'wss' if tls else 'ws'}://{place}:{listener.getsockname()[1]}{path}"
    finally:
        ended.set()
        with socket.create_connection(listener.getsockname()[:2]):
            acceptor.join()
        for client in clients:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        listener.close()


def read_request(client):
    """Read a request's head, byte by byte so that nothing behind it is lost."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            raise ConnectionResetError
        head += byte
    return head


def accept_upgrade(request, *fields):
    """Return the answer 101 to a request's head (RFC 6455, section 4.2.2), with further header fields."""
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accept, *fields, b"", b""])


def upgrade(client):
    client.sendall(accept_upgrade(read_request(client)))


def read_frame(client):
    """Read one frame of the client, which must be masked, and return (opcode, payload)."""

    def take(count):
        data = b""
        while len(data) < count:
            more = client.recv(count - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data

    first, second = take(2)
    assert second & 0x80, "a client's frame must be masked"
    length = second & 0x7F
    if length == 126:
        length = int.from_bytes(take(2), "big")
    elif length == 127:
        length = int.from_bytes(take(8), "big")
    mask = take(4)
    return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(take(length)))


def status(name, message):
    return json.dumps([{"ev": "status", "status": name, "message": message}])


def massive_login(connection, *, key=KEY):
    """Play Massive's side of the login, up to the subscription; return the topics."""
    connection.send(status("connected", "Connected Successfully"))
    assert json.loads(connection.recv()) == {"action": "auth", "params": key}
    connection.send(status("auth_success", "authenticated"))
    asked = json.loads(connection.recv())
    assert asked["action"] == "subscribe"
    return asked["params"].split(",")


def massive(connection):
    """Massive with one trade to give, then silence until the client leaves."""
    for topic in massive_login(connection):
        connection.send(status("success", f"subscribed to: {topic}"))
    connection.send('[{"ev":"T","sym":"MSFT","p":1}]')
    for _ in connection:
        pass


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, tmp_path):
        self._authority = trustme.CA()
        self.file = tmp_path / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def server(self, *names):
        """Return a TLS context for a server with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context

    def bundle(self, *names):
        """Return a file with a certificate for these names and its key."""
        path = self.file.with_name("server.pem")
        self._authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path
