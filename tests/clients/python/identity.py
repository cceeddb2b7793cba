"""What stands outside the broker in the tests of authentication backends: an issuer of tokens and an HTTP service."""

import base64
import http.client
import json
import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RESOURCE_SERVER = "rabbitmq"


class Issuer:
    """Signs tokens, and tells the keys it has."""

    def __init__(self):
        self.keys = {}

    def add(self, kid, kind="RS256"):
        key = rsa.generate_private_key(65537, 2048) if kind == "RS256" else ec.generate_private_key(ec.SECP256R1())
        self.keys[kid] = (kind, key)

    def jwks(self):
        return {"keys": [self._public(kid, kind, key) for kid, (kind, key) in self.keys.items()]}

    @staticmethod
    def _public(kid, kind, key):
        algorithm = jwt.algorithms.RSAAlgorithm if kind == "RS256" else jwt.algorithms.ECAlgorithm
        return json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig", "alg": kind}

    def token(self, *scopes, kid="first", seconds=60, user="ann", **claims):
        """A token with scopes that lack their prefix."""
        kind, key = self.keys[kid]
        claims = {
            "aud": [RESOURCE_SERVER],
            "exp": time.time() + seconds,
            "sub": user,
            "scope": " ".join(f"{RESOURCE_SERVER}.{scope}" for scope in scopes),
        } | claims
        return jwt.encode(claims, key, kind, {"kid": kid})


def certificates(directory):
    """Makes an authority, whose certificate is `authority.pem`, and a server's certificate and key for 127.0.0.1."""
    now = datetime.now(timezone.utc)

    def make(name, issuer, key, signer, *extensions):
        subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, issuer))
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    (directory / "authority.pem").write_bytes(make("authority", "authority", authority, authority, is_authority))
    (directory / "server.pem").write_bytes(make("server", "authority", server, authority, address))
    key = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.key").write_bytes(key)
    return directory / "server.pem", directory / "server.key"


class Service:
    """An HTTP server on a free port. `answer(path, parameters)` returns a body, or a status and a body."""

    def __init__(self, answer, tls=None):
        """With `tls`, a directory, it speaks https, with a certificate of an authority whose own is put there."""
        self.requests = []
        # The header of each request that says who asks.
        self.authorizations = []
        self._scheme = "https" if tls else "http"
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                parts = urlsplit(self.path)
                self._respond(parts.path, parts.query)

            def do_POST(self):
                form = self.rfile.read(int(self.headers["content-length"]))
                self._respond(urlsplit(self.path).path, form.decode())

            def _respond(self, path, form):
                parameters = {name: values[0] for name, values in parse_qs(form, keep_blank_values=True).items()}
                service.authorizations.append(self.headers["authorization"])
                service.requests.append((self.command, path, parameters))
                result = answer(path, parameters)
                status, body = result if isinstance(result, tuple) else (200, result)
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body.encode())
                except OSError:
                    # The broker has not waited for a slow answer.
                    pass

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificates(tls))
            # The handshake is not done where connections are accepted.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self._server.handle_error = lambda *_: None
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def asked(self, path, **parameters):
        """How often `path` was asked with at least these parameters."""
        return sum(one == path and parameters.items() <= given.items() for _method, one, given in self.requests)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def manage(broker, authorization, path="/api/whoami"):
    """The management API's status and answer to somebody, on the socket in the data directory."""
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(broker._directory / "data" / "warren.sock"))
    connection.request("GET", path, headers={"authorization": authorization})
    response = connection.getresponse()
    body = json.loads(response.read() or "null")
    connection.close()
    return response.status, body


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
