"""One HTTP request at a time, with the path sent exactly as given."""

import base64
import http.client
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30


@dataclass
class Answer:
    """A status, the headers by lower-case name, and the body: decoded JSON where the content type says so."""

    status: int
    headers: dict = field(default_factory=dict)
    body: object = None

    def __str__(self) -> str:
        return f"{self.status} {json.dumps(self.body)[:300]}"


class Client:
    """Sends requests to one management listener."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 15672
        self._administrator = (parts.username or "guest", parts.password or "guest")

    def send(self, method: str, path: str, *, login=None, headers=None, body: bytes | None = None) -> Answer:
        """`login` is a user and a password, or None for a request without credentials."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in self._headers(login, headers or {}).items():
                connection.putheader(name, value)
            if body is not None or method in ("PUT", "POST", "PATCH"):
                connection.putheader("content-length", str(len(body or b"")))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return self._answer(response, response.read())
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """A request of the administrator with a JSON body, for preparations."""
        encoded = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        return self.send(method, path, login=self._administrator, headers=headers, body=encoded)

    @property
    def administrator(self) -> tuple[str, str]:
        return self._administrator

    @staticmethod
    def _headers(login, headers: dict) -> dict:
        if login is None:
            return headers
        token = base64.b64encode(":".join(login).encode()).decode()
        return {"authorization": f"Basic {token}", **headers}

    @staticmethod
    def _answer(response: http.client.HTTPResponse, content: bytes) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        if headers.get("content-encoding") == "gzip":
            import gzip

            content = gzip.decompress(content)
        text = content.decode("utf-8", "replace")
        if not text:
            return Answer(response.status, headers, None)
        try:
            return Answer(response.status, headers, json.loads(text))
        except ValueError:
            return Answer(response.status, headers, text)
