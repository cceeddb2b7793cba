"""Opaque tokens: an endpoint is asked what they stand for, by AMQP logins each time, by the management API now and then."""

import base64
import json
import threading
import time

import pika
import pytest
from broker import Broker
from identity import Issuer, RESOURCE_SERVER, Service, basic, manage
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ConnectionClosedByBroker
from support import wait_until

SECRET = "the client's secret: %&+"
ALL = f"{RESOURCE_SERVER}.read:*/* {RESOURCE_SERVER}.write:*/* {RESOURCE_SERVER}.configure:*/*"
BASIC = "Basic " + base64.b64encode(b"warren%3A1:the%20client%27s%20secret%3A%20%25%26%2B").decode()


class Endpoint:
    """What the endpoint answers; tests change it."""

    def __init__(self):
        self.tokens = {}
        self.slow = 0
        self.answer = None

    def __call__(self, path, parameters):
        if path != "/introspect":
            return 404, ""
        if self.slow:
            time.sleep(self.slow)
        if self.answer is not None:
            return self.answer
        return json.dumps(self.tokens.get(parameters["token"], {"active": False}))

    def add(self, token, seconds=60, **claims):
        """A token that is active, with changes to its claims; None takes one away."""
        claims = {"active": True, "aud": RESOURCE_SERVER, "exp": int(time.time() + seconds), "sub": "ann"} | claims
        self.tokens[token] = {"scope": ALL} | {name: value for name, value in claims.items() if value is not None}
        return token


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def service(endpoint):
    service = Service(endpoint)
    yield service
    service.close()


def start(service, tmp_path, **settings):
    """A broker that takes opaque tokens after its own users' passwords."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    settings = {
        "auth.backends": "internal,oauth2",
        "oauth2.resource_server_id": RESOURCE_SERVER,
        "oauth2.introspection_endpoint": f"{service.url}/introspect",
        "oauth2.introspection_client_id": "warren:1",
        "oauth2.introspection_client_secret_file": tmp_path / "secret",
        "oauth2.timeout": "700ms",
    } | settings
    broker = Broker(*(f"--set={name}={value}" for name, value in settings.items()))
    broker.start()
    return broker


@pytest.fixture
def broker(service, tmp_path):
    broker = start(service, tmp_path)
    yield broker
    broker.close()
    for secret in ("the client's", "the%20client", base64.b64encode(b"warren%3A1").decode()[:12], "opaque-"):
        assert secret not in broker.last_log, broker.last_log


def login(broker, token, user=""):
    credentials = pika.PlainCredentials(user, token)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port, credentials=credentials))


def refused(broker, token, user=""):
    """Seconds it took, and the reason in the log."""
    begun = time.monotonic()
    with pytest.raises(AMQPConnectionError):
        login(broker, token, user)
    return time.monotonic() - begun, broker.log().rsplit("oauth2: ", 1)[-1].splitlines()[0]


def test_an_opaque_token_logs_in(broker, service, endpoint):
    endpoint.add("opaque-1", scope=f"{RESOURCE_SERVER}.configure:*/{{sub}}-* {RESOURCE_SERVER}.read:*/*")
    with login(broker, "opaque-1", "anybody") as connection:
        connection.channel().queue_declare("ann-queue", exclusive=True)
        with pytest.raises(ChannelClosedByBroker) as error:
            connection.channel().queue_declare("queue")
        assert error.value.reply_code == 403
        assert "configure access to queue 'queue' in vhost '/' refused for user 'ann'" in error.value.reply_text
    assert service.requests == [("POST", "/introspect", {"token": "opaque-1"})]
    assert service.authorizations == [BASIC]
    # Each login asks: a token may have been revoked.
    login(broker, "opaque-1").close()
    assert service.asked("/introspect") == 2
    endpoint.tokens["opaque-1"] = {"active": False}
    assert "it is not active" in refused(broker, "opaque-1")[1]


def test_what_the_endpoint_does_not_hear(broker, service):
    """Passwords that are right, JSON web tokens, and what cannot be a token."""
    login(broker, "guest", "guest").close()
    issuer = Issuer()
    issuer.add("first")
    assert "its key" in refused(broker, issuer.token())[1]
    for password in ("two words", "", "\u00e9", "x" * 8193):
        assert "characters or a length that no token has" in refused(broker, password)[1]
    assert service.requests == []


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"exp": None}, "it has no time of expiry"),
        ({"seconds": -1}, "it expired at"),
        ({"aud": "somebody"}, "it is not for this resource server"),
        ({"aud": None}, "it is not for this resource server"),
        ({"sub": None}, "no claim has the name of a user"),
        ({"active": "yes"}, "does not say whether it is active"),
    ],
)
def test_claims_that_do_not_log_in(broker, endpoint, changes, reason):
    assert reason in refused(broker, endpoint.add("opaque-bad", **changes))[1]


def test_the_user_may_be_called_username(broker, endpoint):
    endpoint.add("opaque-1", sub=None, username="ann smith", client_id="app")
    with login(broker, "opaque-1") as connection:
        queue = connection.channel().queue_declare("", exclusive=True).method.queue
        connection.channel().basic_publish("", queue, b"", pika.BasicProperties(user_id="ann smith"))
        connection.process_data_events()


def test_resource_servers_and_issuers_count(service, endpoint, tmp_path):
    """As for JSON web tokens. No key is needed, nor fetched, for those."""
    settings = {"oauth2.resource_servers": '{ prod = { issuers = ["http://127.0.0.1:1"], scope_prefix = "mq." } }'}
    broker = start(service, tmp_path, **settings)
    prod = {"aud": "prod", "scope": "mq.read:*/*"}
    login(broker, endpoint.add("opaque-1", iss="http://127.0.0.1:1", **prod)).close()
    assert "its issuer is not accepted" in refused(broker, endpoint.add("opaque-2", **prod))[1]
    assert "its issuer is not accepted" in refused(broker, endpoint.add("opaque-3", iss="http://127.0.0.1:1"))[1]
    assert "for several resource servers" in refused(broker, endpoint.add("opaque-4", aud=["prod", RESOURCE_SERVER]))[1]
    broker.close()


def test_expiry_and_renewal(broker, endpoint):
    expires = int(time.time()) + 3
    with login(broker, endpoint.add("opaque-1", exp=expires)) as connection:
        channel = connection.channel()
        channel.queue_declare("renewed", exclusive=True)
        connection.update_secret(endpoint.add("opaque-2", seconds=60), "soon expired")
        while time.time() < expires + 1:
            connection.process_data_events(time_limit=0.2)
        assert channel.basic_get("renewed")[0] is None
        for token in (endpoint.add("opaque-eve", sub="eve"), "opaque-unknown"):
            with login(broker, "opaque-2") as other, pytest.raises(ConnectionClosedByBroker) as error:
                other.update_secret(token, "")
                other.process_data_events(time_limit=10)
            assert error.value.reply_code == 530
    connection = login(broker, endpoint.add("opaque-3", seconds=2))
    with pytest.raises(ConnectionClosedByBroker) as error:
        connection.process_data_events(time_limit=15)
    assert (error.value.reply_code, error.value.reply_text) == (320, "CONNECTION_FORCED - credential expired")


def test_the_client_in_the_form(service, endpoint, tmp_path):
    broker = start(service, tmp_path, **{"oauth2.introspection_client_auth_method": "request_param"})
    login(broker, endpoint.add("opaque-1")).close()
    form = {"token": "opaque-1", "client_id": "warren:1", "client_secret": SECRET}
    assert service.requests == [("POST", "/introspect", form)]
    assert service.authorizations == [None]
    broker.close()
    assert SECRET not in broker.last_log


@pytest.mark.parametrize(
    "answer, reason",
    [
        ((500, "{}"), "the introspection endpoint gives no answer: the answer has status 500"),
        ((401, json.dumps({"active": True})), "the introspection endpoint gives no answer: the answer has status 401"),
        ((302, ""), "the introspection endpoint gives no answer: the answer has status 302"),
        ("<html>", "does not say whether it is active"),
        ("{}", "does not say whether it is active"),
        (json.dumps({"active": True, "x": "x" * (1 << 20)}), "the answer is longer than 1048576 bytes"),
    ],
    ids=["error", "client", "redirect", "page", "nothing", "long"],
)
def test_answers_that_say_nothing(broker, endpoint, answer, reason):
    endpoint.answer = answer
    assert reason in refused(broker, "opaque-1")[1]
    status, body = manage(broker, "Bearer opaque-1")
    assert (status, body["error"]) == (503, "service_unavailable")
    assert "opaque" not in json.dumps(body) and "introspect" not in json.dumps(body)


def test_an_endpoint_that_is_down(broker, service):
    service.close()
    assert "the introspection endpoint gives no answer: cannot connect" in refused(broker, "opaque-1")[1]
    assert manage(broker, "Bearer opaque-1")[0] == 503
    assert manage(broker, basic("", "opaque-1"))[0] == 503
    login(broker, "guest", "guest").close()
    assert manage(broker, basic("guest", "guest"))[0] == 200


def test_an_endpoint_that_is_slow_holds_up_nobody_else(broker, endpoint):
    endpoint.add("opaque-1")
    with login(broker, "opaque-1") as connection:
        channel = connection.channel()
        endpoint.slow = 3
        waiting = [threading.Thread(target=refused, args=(broker, f"opaque-{number}")) for number in range(20)]
        for one in waiting:
            one.start()
        time.sleep(0.2)
        begun = time.monotonic()
        login(broker, "guest", "guest").close()
        channel.queue_declare("", exclusive=True)
        assert time.monotonic() - begun < 0.5
        for one in waiting:
            one.join()
    wait_until(lambda: "no answer in 700 ms" in broker.log(), "the reason")
    assert manage(broker, "Bearer opaque-1")[0] == 503


def test_the_management_api(broker, service, endpoint):
    """Bearer and Basic; within some seconds the endpoint is asked once for each token, and AMQP asks all the same."""
    endpoint.add("opaque-1", scope=f"{RESOURCE_SERVER}.tag:monitoring {ALL}")
    endpoint.add("opaque-2", scope=ALL)
    for _ in range(5):
        assert manage(broker, "Bearer opaque-1") == (
            200,
            {"name": "ann", "tags": ["monitoring"], "is_internal_user": False},
        )
        assert manage(broker, basic("whoever", "opaque-1"))[0] == 200
    assert service.asked("/introspect", token="opaque-1") == 1
    login(broker, "opaque-1").close()
    assert service.asked("/introspect", token="opaque-1") == 2
    assert manage(broker, "Bearer opaque-2")[0] == 401, "it has no tag"
    # What was refused is not remembered.
    assert manage(broker, "Bearer opaque-3")[0] == 401
    endpoint.add("opaque-3", scope=f"{RESOURCE_SERVER}.tag:management")
    assert manage(broker, "Bearer opaque-3")[0] == 200
    # A token that was revoked is let in for ten seconds at most.
    endpoint.tokens["opaque-1"] = {"active": False}
    begun = time.monotonic()
    wait_until(lambda: manage(broker, "Bearer opaque-1")[0] == 401, "the end of what is remembered", seconds=15)
    assert time.monotonic() - begun < 11


def test_nothing_is_remembered_past_its_expiry(broker, endpoint):
    expires = int(time.time()) + 2
    token = endpoint.add("opaque-1", exp=expires, scope=f"{RESOURCE_SERVER}.tag:management")
    assert manage(broker, f"Bearer {token}")[0] == 200
    endpoint.add("opaque-1", exp=expires, active=False)
    time.sleep(max(0, expires - time.time()) + 0.05)
    assert manage(broker, f"Bearer {token}")[0] == 401


def test_over_tls_beside_keys(endpoint, tmp_path):
    """The same authority vouches for both; each kind of token goes its way."""
    issuer = Issuer()
    issuer.add("first")

    def answer(path, parameters):
        return json.dumps(issuer.jwks()) if path == "/keys" else endpoint(path, parameters)

    service = Service(answer, tls=tmp_path)
    settings = {"oauth2.jwks_uri": f"{service.url}/keys", "oauth2.cacertfile": tmp_path / "authority.pem"}
    broker = start(service, tmp_path, **settings)
    login(broker, endpoint.add("opaque-1")).close()
    login(broker, issuer.token("read:*/*")).close()
    assert service.asked("/introspect") == 1
    broker.close()
    broker = start(service, tmp_path)
    assert "no TLS connection" in refused(broker, "opaque-1")[1]
    broker.close()
    service.close()


def test_a_token_for_a_user_of_the_broker(service, endpoint, tmp_path):
    broker = start(service, tmp_path, **{"auth.backends": "oauth2+internal"})
    with login(broker, endpoint.add("opaque-1", sub="guest", scope=None)) as connection:
        connection.channel().queue_declare("", exclusive=True)
    assert "the broker has no user of this name" in refused(broker, endpoint.add("opaque-2", sub="nobody"))[1]
    broker.close()
