"""AMQP over TLS: certificates of both sides, logins by certificate, new certificates, peers that do not play along."""

import os
import shutil
import signal
import socket
import ssl
import time
import uuid

import pika
import pytest
from broker import Broker
from certificates import Authority
from cryptography import x509
from pika.credentials import ExternalCredentials
from pika.exceptions import AMQPConnectionError, ProbableAuthenticationError
from support import wait_until

pytestmark = pytest.mark.skipif("AMQP_URL" in os.environ, reason="TLS needs a broker with settings of its own")

HEADER = b"AMQP\0\0\x09\x01"


class Site:
    """An authority and a broker that serves with certificates from it."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.certificate, self.key = self.authority.server("server", "localhost")
        self.broker = None

    def start(self, settings: str = "", *, users=(), amqp: str = "", reload: str = "1s") -> "Site":
        config = f"""
            [amqp]
            tls_port = 0
            {amqp}
            [tls]
            certificate_file = "{self.certificate}"
            key_file = "{self.key}"
            reload_interval = "{reload}"
            {settings}
            """
        for user in users:
            config += f"""
            [[users]]
            name = "{user}"
            password = "{uuid.uuid4().hex}"
            permissions = [{{ vhost = "/", configure = ".*", write = ".*", read = ".*" }}]
            """
        file = self.directory / "broker.toml"
        file.write_text(config)
        self.broker = Broker("--config", str(file))
        self.broker.start()
        return self

    @property
    def port(self) -> int:
        return self.broker.tls_port

    def context(self, client=None, authority=None) -> ssl.SSLContext:
        """A client that trusts the authority and, given the files of a certificate, presents it."""
        context = ssl.create_default_context(cafile=str(authority or self.authority.file))
        if client:
            context.load_cert_chain(*map(str, client))
        return context

    def connect(self, context=None, credentials=None, host="localhost") -> pika.BlockingConnection:
        parameters = pika.ConnectionParameters(
            "127.0.0.1",
            self.port,
            credentials=credentials or pika.PlainCredentials("guest", "guest"),
            ssl_options=pika.SSLOptions(context or self.context(), host),
            socket_timeout=10,
        )
        return pika.BlockingConnection(parameters)

    def handshake(self, context=None, host="localhost") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        try:
            return (context or self.context()).wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def wait_for_log(self, text: str) -> str:
        """The first line of the log with the text."""

        def find():
            return next((line for line in self.broker.whole_log().splitlines() if text in line), None)

        return wait_until(find, f"a line with {text!r} in the log")


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    if site.broker:
        site.broker.close()


def round_trip(connection, body=b"hello") -> None:
    """Publishes and consumes one message."""
    with connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, body)
        method, _, received = channel.basic_get(queue, auto_ack=True)
        assert method is not None
        assert received == body


VERIFYING = """
    verify = "peer"
    ca_file = "{}"
"""


def verifying(site, rest=""):
    return VERIFYING.format(site.authority.file) + rest


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_of_every_size(site, version):
    site.start()
    context = site.context()
    context.minimum_version = context.maximum_version = version
    for body in (b"", b"x", bytes(range(256)) * 64, bytes(range(256)) * 4096 * 5):
        round_trip(site.connect(context), body)


def test_both_directions_at_once(site):
    """More than all buffers hold waits for the socket while more comes in."""
    site.start()
    with site.connect() as publisher, site.connect() as consumer:
        outgoing = publisher.channel()
        queue = outgoing.queue_declare(f"tls-{uuid.uuid4().hex}", auto_delete=True).method.queue
        received = []
        incoming = consumer.channel()
        incoming.basic_consume(queue, lambda *delivery: received.append(delivery[3]), auto_ack=True)
        bodies = [bytes([number % 256]) * 40_000 for number in range(500)]
        for body in bodies:
            outgoing.basic_publish("", queue, body)
        wait_until(lambda: len(received) == len(bodies), "all deliveries", step=lambda: consumer.process_data_events(0.1))
        assert received == bodies


def test_rsa_certificates_and_chosen_ciphers(site):
    site.certificate, site.key = site.authority.server("rsa", "localhost", with_rsa=True)
    site.start('versions = ["1.2"]\nciphers = ["ECDHE-RSA-AES128-GCM-SHA256"]')
    with site.handshake() as stream:
        assert stream.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"
        assert stream.version() == "TLSv1.2"
    context = site.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLError):
        site.handshake(context)


def test_a_client_that_trusts_another_authority_refuses(site):
    site.start()
    elsewhere = site.directory / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ssl.SSLCertVerificationError):
        site.handshake(site.context(authority=Authority(elsewhere, "stranger").file))
    assert "UnknownCA" in site.wait_for_log("TLS handshake failed")
    round_trip(site.connect())


def test_old_versions_are_refused(site):
    site.start()
    context = site.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        site.handshake(context)
    line = site.wait_for_log("TLS handshake failed")
    assert "peer=127.0.0.1:" in line
    assert "the client speaks nothing newer than TLS 1.1" in line, line


def test_server_names_choose_the_certificate(site):
    internal = site.authority.server("internal", "broker.internal.example", "*.wild.example")
    other = site.authority.server("other", "other.example")
    site.start(f"""
        [[tls.certificates]]
        certificate_file = "{internal[0]}"
        key_file = "{internal[1]}"
        [[tls.certificates]]
        certificate_file = "{other[0]}"
        key_file = "{other[1]}"
        server_names = ["Named.Example"]
        """)

    def served(host):
        context = site.context()
        context.check_hostname = False
        with site.handshake(context, host) as stream:
            return dict(field[0] for field in stream.getpeercert()["subject"])["commonName"]

    assert served("broker.internal.example") == "broker.internal.example"
    assert served("any.wild.example") == "broker.internal.example"
    assert served("named.example") == "other.example"
    assert served("other.example") == "localhost"
    assert served("localhost") == "localhost"
    assert served(None) == "localhost"


def test_a_client_certificate_may_be_asked_for(site):
    site.start(verifying(site))
    round_trip(site.connect())
    round_trip(site.connect(site.context(site.authority.client("client", "client"))))
    elsewhere = site.directory / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere, "stranger").client("stranger", "client")
    with pytest.raises((AMQPConnectionError, ssl.SSLError, OSError)):
        site.connect(site.context(stranger))
    site.wait_for_log("invalid peer certificate: UnknownIssuer")


def test_a_client_certificate_may_be_demanded(site):
    site.start(verifying(site, "fail_if_no_peer_cert = true"))
    with pytest.raises((AMQPConnectionError, ssl.SSLError, OSError)):
        site.connect()
    site.wait_for_log("peer sent no certificates")
    round_trip(site.connect(site.context(site.authority.client("client", "client"))))
    with pytest.raises((AMQPConnectionError, ssl.SSLError, OSError)):
        site.connect(site.context(site.authority.client("old", "client", days=-1)))
    site.wait_for_log("certificate expired")


def test_external_logs_in_by_distinguished_name(site):
    site.start(
        verifying(site), amqp='mechanisms = ["PLAIN", "EXTERNAL"]', users=["CN=client,O=Warren Tests"]
    )
    client = site.context(site.authority.client("client", "client"))
    round_trip(site.connect(client, ExternalCredentials()))
    # The password still works for who has one.
    round_trip(site.connect(client))
    unknown = site.context(site.authority.client("unknown", "unknown"))
    with pytest.raises(ProbableAuthenticationError):
        site.connect(unknown, ExternalCredentials())
    assert "no such user" in site.wait_for_log("EXTERNAL(CN=unknown,O=Warren Tests)")
    # Offered, so that the log can say what is missing.
    with pytest.raises(ProbableAuthenticationError):
        site.connect(None, ExternalCredentials())
    site.wait_for_log("presented no TLS (x.509) certificate")


@pytest.mark.parametrize(
    ("settings", "user"),
    [
        ('login_from = "common_name"', "client"),
        ('login_from = "subject_alternative_name"', "first.example"),
        ('login_from = "subject_alternative_name"\nlogin_san_index = 1', "second.example"),
        ('login_from = "subject_alternative_name"\nlogin_san_type = "uri"', "spiffe://site/client"),
        ('login_from = "subject_alternative_name"\nlogin_san_type = "email"', "client@site.example"),
    ],
)
def test_external_logs_in_by_other_names(site, settings, user):
    site.start(verifying(site, settings), amqp='mechanisms = ["EXTERNAL"]', users=[user])
    names = [
        x509.DNSName("first.example"),
        x509.DNSName("second.example"),
        x509.UniformResourceIdentifier("spiffe://site/client"),
        x509.RFC822Name("client@site.example"),
    ]
    client = site.context(site.authority.client("client", "client", *names))
    round_trip(site.connect(client, ExternalCredentials()))


def test_external_is_not_offered_without_tls(site):
    site.start(verifying(site), amqp='mechanisms = ["PLAIN", "EXTERNAL"]', users=["client"])
    with socket.create_connection(("127.0.0.1", site.broker.port), timeout=10) as plain:
        plain.sendall(HEADER)
        start = plain.recv(4096)
    assert b"PLAIN" in start
    assert b"EXTERNAL" not in start
    parameters = pika.ConnectionParameters("127.0.0.1", site.broker.port, credentials=ExternalCredentials())
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(parameters)


def peer_serial(site) -> int:
    with site.handshake() as stream:
        return int(stream.getpeercert()["serialNumber"], 16)


def test_new_files_are_used_and_broken_ones_are_not(site):
    site.start()
    before = peer_serial(site)
    with site.connect() as connection:
        site.key.write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
        assert str(site.key) in site.wait_for_log("the certificates in use stay")
        assert peer_serial(site) == before

        new = site.authority.server("new", "localhost")
        # As tools that renew certificates do: a new file in the place of the old one.
        shutil.move(new[1], site.key)
        shutil.move(new[0], site.certificate)
        wait_until(lambda: peer_serial(site) != before, "the new certificate")
        # Who was connected stays so.
        connection.channel().queue_declare("", exclusive=True)


def test_sighup_reads_the_files(site):
    site.start(reload="0s")
    before = peer_serial(site)
    new = site.authority.server("new", "localhost")
    shutil.copy(new[1], site.key)
    shutil.copy(new[0], site.certificate)
    site.broker.signal(signal.SIGHUP)
    wait_until(lambda: peer_serial(site) != before, "the new certificate")
    site.wait_for_log("TLS files read again")


def test_a_private_key_for_everybody_is_warned_of(site):
    site.key.chmod(0o644)
    site.start()
    assert "644" in site.wait_for_log("everybody can read it")
    assert "PRIVATE KEY" not in site.broker.whole_log()


def test_a_wrong_file_stops_the_start(site):
    site.key = site.authority.server("other", "localhost")[1]
    with pytest.raises(AssertionError, match="the key does not belong to the certificate"):
        site.start()
    site.broker.kill()
    site.broker = None


def test_amqp_without_tls_on_the_tls_port(site):
    site.start()
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as plain:
        plain.sendall(HEADER)
        # An alert of TLS, then the end.
        assert plain.recv(100)[:1] in (b"\x15", b"")
        while plain.recv(100):
            pass
    site.wait_for_log("AMQP without TLS on the TLS port")
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while plain.recv(100):
            pass
    site.wait_for_log("HTTP without TLS on the TLS port")


def test_tls_on_the_plain_port(site):
    site.start()
    with pytest.raises(ssl.SSLError):
        plain = socket.create_connection(("127.0.0.1", site.broker.port), timeout=10)
        with plain:
            site.context().wrap_socket(plain, server_hostname="localhost")
    site.wait_for_log("TLS client detected on non-TLS AMQP port")


def test_garbage_in_the_middle_ends_the_connection(site):
    site.start()
    stream = site.handshake()
    stream.sendall(HEADER)
    assert stream.recv(4096)
    raw = socket.socket(fileno=os.dup(stream.fileno()))
    with raw, stream:
        raw.settimeout(10)
        raw.sendall(b"\x17\x03\x03\x00\x20" + b"?" * 32)
        while raw.recv(4096):
            pass
    site.wait_for_log("cannot decrypt peer's message")
    round_trip(site.connect())


def test_a_farewell_in_tls_is_answered(site):
    site.start()
    stream = site.handshake()
    stream.sendall(HEADER)
    assert stream.recv(4096)
    # Waits for the broker's close_notify; without one this is an error.
    stream.unwrap().close()


def test_a_handshake_that_takes_too_long_ends(site):
    site.start(amqp='handshake_timeout = "1s"')
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as slow:
        # The beginning of a record, byte by byte.
        for byte in (b"\x16", b"\x03", b"\x01"):
            slow.sendall(byte)
        assert slow.recv(1) == b""
    assert time.monotonic() - began < 8
    site.wait_for_log("not finished within 1000 ms")
    # The handshake of TLS does not begin the time anew for that of AMQP.
    with site.handshake() as silent:
        silent.settimeout(10)
        assert silent.recv(1) == b""


def test_a_thousand_half_open_handshakes_do_not_hurt_others(site):
    site.start(amqp='handshake_timeout = "30s"')
    half_open = []
    try:
        for _ in range(1000):
            plain = socket.create_connection(("127.0.0.1", site.port), timeout=10)
            half_open.append(plain)
            # Half of the header of a ClientHello.
            plain.sendall(b"\x16\x03\x01\x02\x00\x01")
        began = time.monotonic()
        for _ in range(10):
            round_trip(site.connect())
        assert time.monotonic() - began < 10
    finally:
        for plain in half_open:
            plain.close()


def test_no_tls_means_no_listener_and_sighup_is_harmless(site):
    site.broker = Broker()
    site.broker.start()
    assert site.broker.tls_port == 0
    site.broker.signal(signal.SIGHUP)
    site.wait_for_log("configuration read again: nothing has changed")
    pika.BlockingConnection(pika.URLParameters(site.broker.url)).close()


def test_a_client_of_another_protocol_is_told(site):
    """AMQP 1.0 over TLS is answered as it is without."""
    site.start()
    with site.handshake() as stream:
        stream.sendall(b"AMQP\0\x01\0\0")
        assert stream.recv(8) == b"AMQP\0\0\x09\x01"
