"""The PROXY protocol: whose header counts, and whose address it gives."""

import os
import socket
import ssl
import struct

import pytest
from broker import Broker
from certificates import Authority
from support import wait_until

pytestmark = pytest.mark.skipif("AMQP_URL" in os.environ, reason="needs a broker with settings of its own")

HEADER = b"AMQP\0\0\x09\x01"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_2(source: str, port: int, command: int = 0x21) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.100") + struct.pack("!HH", port, 5672)
    return SIGNATURE + bytes([command, 0x11]) + struct.pack("!H", len(addresses)) + addresses


@pytest.fixture
def start(tmp_path):
    started = []

    def start_broker(settings: str) -> Broker:
        file = tmp_path / "broker.toml"
        file.write_text(f"[amqp]\nproxy_protocol = true\n{settings}")
        broker = Broker("--config", str(file), "--set", "log.level=debug")
        broker.start()
        started.append(broker)
        return broker

    yield start_broker
    for broker in started:
        broker.close()


def first_bytes(port: int, *pieces: bytes) -> bytes:
    """Sends the pieces one by one and returns the beginning of the answer, empty when the broker closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            plain.sendall(piece)
        try:
            return plain.recv(7)
        except ConnectionResetError:
            return b""


def wait_for_log(broker, text):
    return wait_until(lambda: text in broker.whole_log(), f"{text!r} in the log")


CONNECTION_START = b"\x01\0\0"


def test_the_address_is_that_of_the_client(start):
    broker = start("")
    line = b"PROXY TCP4 192.0.2.7 192.0.2.100 4711 5672\r\n"
    assert first_bytes(broker.port, line + HEADER)[:3] == CONNECTION_START
    wait_for_log(broker, "192.0.2.7:4711")
    assert first_bytes(broker.port, b"PROXY TCP6 2001:db8::7 ::1 4712 5672\r\n" + HEADER)[:3] == CONNECTION_START
    wait_for_log(broker, "[2001:db8::7]:4712")
    assert first_bytes(broker.port, version_2("192.0.2.8", 4713) + HEADER)[:3] == CONNECTION_START
    wait_for_log(broker, "192.0.2.8:4713")
    # In pieces, and for the proxy itself.
    assert first_bytes(broker.port, *(bytes([byte]) for byte in line + HEADER))[:3] == CONNECTION_START
    assert first_bytes(broker.port, b"PROXY UNKNOWN\r\n", HEADER)[:3] == CONNECTION_START
    assert first_bytes(broker.port, version_2("0.0.0.0", 0, command=0x20), HEADER)[:3] == CONNECTION_START


def test_guest_is_local_by_the_address_of_the_client(start):
    """The proxy is on this host; its client is not."""
    broker = start("")
    start_ok = b"\0\0\0\0" + b"\x05PLAIN" + struct.pack("!I", 12) + b"\0guest\0guest" + b"\x05en_US"
    payload = struct.pack("!HH", 10, 11) + start_ok
    frame = struct.pack("!BHI", 1, 0, len(payload)) + payload + b"\xce"

    def log_in(source: bytes) -> bytes:
        """The method that answers the login, or nothing."""
        with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as plain:
            plain.sendall(b"PROXY TCP4 " + source + b" 192.0.2.100 4711 5672\r\n" + HEADER)
            with plain.makefile("rb") as stream:
                _, _, length = struct.unpack("!BHI", stream.read(7))
                stream.read(length + 1)
                plain.sendall(frame)
                head = stream.read(7)
                return stream.read(4) if head else b""

    assert log_in(b"127.0.0.1") == struct.pack("!HH", 10, 30)
    assert log_in(b"192.0.2.7") == b""
    wait_for_log(broker, "user can only connect via localhost")


def test_connections_without_a_header_are_refused(start):
    broker = start("")
    assert first_bytes(broker.port, HEADER) == b""
    wait_for_log(broker, "the connection does not begin with a PROXY header")
    assert first_bytes(broker.port, b"PROXY TCP4 nonsense\r\n") == b""
    wait_for_log(broker, "the PROXY header is malformed")
    assert first_bytes(broker.port, SIGNATURE + b"\x21\x11\xff\xff") == b""
    wait_for_log(broker, "the PROXY header is longer")


def test_a_proxy_that_is_not_trusted_is_refused(start):
    broker = start('proxy_trusted = ["10.0.0.0/8"]')
    assert first_bytes(broker.port, b"PROXY TCP4 10.0.0.1 192.0.2.100 4711 5672\r\n" + HEADER) == b""
    wait_for_log(broker, "does not come from a proxy in amqp.proxy_trusted")


def test_a_header_that_does_not_come_ends_the_connection(start):
    broker = start('handshake_timeout = "1s"')
    assert first_bytes(broker.port, b"PROXY TCP4 192.0.2.7 ") == b""
    wait_for_log(broker, "PROXY header missing")


def test_tls_follows_the_header(start, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.server("server", "localhost")
    broker = start(f'tls_port = 0\n[tls]\ncertificate_file = "{certificate}"\nkey_file = "{key}"\n')
    context = ssl.create_default_context(cafile=str(authority.file))
    plain = socket.create_connection(("127.0.0.1", broker.tls_port), timeout=10)
    plain.sendall(version_2("192.0.2.9", 4714))
    with context.wrap_socket(plain, server_hostname="localhost") as stream:
        stream.sendall(HEADER)
        assert stream.recv(7)[:3] == CONNECTION_START
    wait_for_log(broker, "192.0.2.9:4714")
