"""The HTTP authentication backend: a service allows, denies, is slow, is down."""

import time

import pika
import pytest
from broker import Broker
from identity import Service, basic, manage
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
)

SECRET = "correct horse battery"


class Directory:
    """What the service answers; tests change it."""

    def __init__(self):
        self.slow = 0
        self.status = 200
        self.denied = set()

    def __call__(self, path, parameters):
        if self.slow:
            time.sleep(self.slow)
        if self.status != 200:
            return self.status, "allow"
        if path == "/user":
            right = parameters.get("password", SECRET) == SECRET
            return "allow monitoring" if right else f"deny {parameters['password']} is wrong"
        if path == "/vhost":
            return "allow" if parameters["username"] != "homeless" else "deny"
        key = parameters.get("routing_key", parameters["name"])
        return "deny" if (parameters["permission"], key) in self.denied else "allow"


@pytest.fixture
def directory():
    return Directory()


@pytest.fixture
def service(directory):
    service = Service(directory)
    yield service
    service.close()


def start(service, **settings):
    paths = {f"auth_http.{path}_path": f"{service.url}/{path}" for path in ("user", "vhost", "resource", "topic")}
    settings = {"auth.backends": "internal,http", "auth_http.timeout": "500ms"} | paths | settings
    broker = Broker(*(f"--set={name}={value}" for name, value in settings.items()))
    broker.start()
    return broker


@pytest.fixture
def broker(service):
    broker = start(service)
    yield broker
    broker.close()


def login(broker, user="ann", password=SECRET):
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port, credentials=credentials))


def refused(broker, **credentials):
    begun = time.monotonic()
    with pytest.raises(AMQPConnectionError):
        login(broker, **credentials)
    return time.monotonic() - begun


def channel_error(connection, action):
    with pytest.raises(ChannelClosedByBroker) as error:
        action(connection.channel())
    return error.value.reply_code, error.value.reply_text


def test_the_service_is_asked_as_by_rabbitmq(broker, service):
    with login(broker) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("a queue/é", auto_delete=True).method.queue
        channel.queue_bind(queue, "amq.topic", "key.#")
        channel.confirm_delivery()
        channel.basic_publish("amq.topic", "key.1", b"first")
        channel.basic_publish("", queue, b"second")
        assert [channel.basic_get(queue, auto_ack=True)[2] for _ in range(2)] == [b"first", b"second"]
        channel.queue_delete(queue)
    ann = {"username": "ann", "vhost": "/", "tags": "monitoring"}
    assert service.requests[0] == ("POST", "/user", {"username": "ann", "password": SECRET})
    assert service.requests[1] == ("POST", "/vhost", ann | {"ip": "127.0.0.1"})
    queue = ann | {"resource": "queue", "name": "a queue/é"}
    for permission in ("configure", "write", "read"):
        assert service.asked("/resource", **queue, permission=permission) == 1, permission
    assert service.asked("/resource", **ann, resource="exchange", name="amq.default", permission="write") == 1
    topic = ann | {"resource": "topic", "name": "amq.topic"}
    assert service.asked("/topic", **topic, permission="read", routing_key="key.#") == 1
    variables = {"variable_map.username": "ann", "variable_map.vhost": "/"}
    assert service.asked("/topic", **topic, permission="write", routing_key="key.1", **variables) == 1


def test_denials(broker, directory):
    refused(broker, password="something wrong")
    refused(broker, password="")
    with pytest.raises(ProbableAccessDeniedError) as error:
        login(broker, user="homeless")
    assert "(530)" in str(error.value) and "access to vhost '/' refused for user 'homeless'" in str(error.value)
    directory.denied = {("configure", "forbidden"), ("write", "amq.direct"), ("write", "bad.key"), ("read", "q")}
    with login(broker) as connection:
        code, text = channel_error(connection, lambda one: one.queue_declare("forbidden"))
        assert code == 403
        assert "configure access to queue 'forbidden' in vhost '/' refused for user 'ann'" in text
        for exchange, key in [("amq.direct", "x"), ("amq.topic", "bad.key")]:

            def publish(channel):
                channel.confirm_delivery()
                channel.basic_publish(exchange, key, b"")

            assert channel_error(connection, publish)[0] == 403
        connection.channel().queue_declare("q", auto_delete=True)
        assert channel_error(connection, lambda one: one.basic_get("q"))[0] == 403
        connection.channel().queue_delete("q")
    log = broker.log()
    assert SECRET not in log and "something wrong" not in log, log


def test_order_is_kept_while_the_service_is_asked(broker, directory):
    """Publishes to many exchanges, each of which has to be asked for, and acknowledgements between them."""
    directory.slow = 0.02
    with login(broker) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        exchanges = [f"ordered-{number}" for number in range(8)]
        for exchange in exchanges:
            channel.exchange_declare(exchange, "fanout", auto_delete=True)
            channel.queue_bind(queue, exchange)
        for number in range(160):
            channel.basic_publish(exchanges[number % 8], "", str(number).encode())
        received = [channel.basic_get(queue, auto_ack=True)[2] for _ in range(160)]
        assert received == [str(number).encode() for number in range(160)]


def test_generated_names_are_asked_for_once(broker, service):
    with login(broker) as connection:
        queue = connection.channel().queue_declare("", exclusive=True).method.queue
        assert service.asked("/resource", name=queue, permission="configure") == 1


def test_a_service_that_is_slow_refuses_and_holds_up_nobody_else(broker, directory):
    with login(broker) as connection:
        directory.slow = 2
        assert refused(broker) < 1.9
        begun = time.monotonic()
        login(broker, user="guest", password="guest").close()
        assert time.monotonic() - begun < 1
        assert channel_error(connection, lambda one: one.queue_declare("slow"))[0] == 403
        directory.slow = 0
        # What was no answer is not remembered.
        connection.channel().queue_declare("slow", auto_delete=True)
        connection.channel().queue_delete("slow")


@pytest.mark.parametrize("status", [204, 302, 403, 500])
def test_other_answers_refuse(broker, directory, status):
    directory.status = status
    refused(broker)


@pytest.mark.parametrize("status, expected", [(403, 401), (500, 503), (302, 503)])
def test_the_management_api_tells_a_refusal_from_no_answer(broker, directory, status, expected):
    assert manage(broker, basic("ann", SECRET))[0] == 200
    directory.status = status
    assert manage(broker, basic("ann", SECRET))[0] == expected
    assert manage(broker, basic("guest", "guest"))[0] == 200


def test_a_service_that_is_down_refuses(broker, service):
    service.close()
    status, body = manage(broker, basic("ann", SECRET))
    assert (status, body["error"]) == (503, "service_unavailable")
    refused(broker)
    login(broker, user="guest", password="guest").close()


def test_get(service):
    broker = start(service, **{"auth_http.method": "get"})
    with login(broker) as connection:
        assert connection.channel().is_open
    assert ("GET", "/user", {"username": "ann", "password": SECRET}) in service.requests
    broker.close()
    assert SECRET not in broker.last_log


@pytest.mark.parametrize("lifetime, asked", [("1h", 1), ("0s", 3)])
def test_answers_are_remembered(service, lifetime, asked):
    broker = start(service, **{"auth.cache_ttl": lifetime})
    for _ in range(3):
        with login(broker) as connection:
            connection.channel().queue_declare("same", auto_delete=True)
    assert service.asked("/resource", name="same", permission="configure") == asked
    assert service.asked("/user") == 3
    broker.close()


def test_one_checks_the_password_and_another_the_rest(service, directory):
    broker = start(service, **{"auth.backends": "http+internal"})
    with login(broker, user="guest") as connection:
        connection.channel().queue_declare("", exclusive=True)
    refused(broker, user="ann")
    assert service.asked("/resource") == 0
    broker.close()
    broker = start(service, **{"auth.backends": "internal+http"})
    with login(broker, user="guest", password="guest") as connection:
        connection.channel().queue_declare("mine", exclusive=True)
    assert service.asked("/user", username="guest", password="guest") == 0
    assert service.asked("/resource", name="mine", permission="configure") == 1
    broker.close()


def test_a_new_password(broker, directory):
    with login(broker) as connection:
        for secret in (SECRET, "something else"):
            connection.update_secret(secret, "again")
            assert connection.channel().is_open


def test_whoever_keeps_failing_waits(broker):
    times = [refused(broker, password=f"wrong {number}") for number in range(7)]
    assert times[6] > times[0] + 1.5, times
    begun = time.monotonic()
    login(broker).close()
    assert time.monotonic() - begun < 1
