"""Fixtures shared by every module: the broker, unique names, pika connections."""

import asyncio
import inspect
import itertools
import os
import uuid

import pika
import pytest
from broker import Broker, broker_binary
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker


def pytest_sessionstart(session):
    """Says once what is missing instead of failing every test."""
    if not os.environ.get("AMQP_URL") and not session.config.option.collectonly and not broker_binary().exists():
        pytest.exit(f"there is no broker at {broker_binary()}: build it, or set WARREN_BIN or AMQP_URL", 2)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs tests written as coroutines, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def url():
    """The URL of the broker under test: `AMQP_URL`, or a broker started for this session."""
    if external := os.environ.get("AMQP_URL"):
        yield external
        return
    broker = Broker()
    broker.start()
    yield broker.url
    broker.close()


@pytest.fixture
def restartable():
    """A broker of its own that the test may restart."""
    if os.environ.get("AMQP_URL"):
        pytest.skip("a broker given by AMQP_URL is not restarted")
    broker = Broker()
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def transient_queues_allowed(url):
    """Whether the broker allows transient queues that are not exclusive; RabbitMQ can be told not to."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        queue = f"probe-{uuid.uuid4().hex}"
        try:
            connection.channel().queue_declare(queue)
        except ConnectionClosedByBroker as error:
            assert error.reply_code == 541, error
            # Only a broker given by the user may refuse.
            assert "AMQP_URL" in os.environ, error
            return False
        connection.channel().queue_delete(queue)
        return True


@pytest.fixture
def global_qos():
    """Skips the test where basic.qos with global=true may mean the same as without (RabbitMQ 4.3)."""
    if os.environ.get("AMQP_URL"):
        pytest.skip("a broker given by AMQP_URL may not have qos for whole channels")


@pytest.fixture
def name(url):
    """Makes unique names; queues and exchanges that have them are deleted after the test."""
    given = []
    stem = uuid.uuid4().hex[:8]
    number = itertools.count(1)

    def make(label: str = "thing") -> str:
        given.append(f"{label}-{stem}-{next(number)}")
        return given[-1]

    yield make
    if given:
        delete_all(url, given)


def delete_all(url: str, names: list[str]) -> None:
    """Deletes the queues and exchanges with these names; absent ones do not matter."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for each in names:
            channel = connection.channel()
            try:
                channel.queue_delete(each)
                channel.exchange_delete(each)
                channel.close()
            except ChannelClosedByBroker as error:
                # An exclusive queue goes away with the connection that has it.
                assert error.reply_code == 405, error


@pytest.fixture
def connect(url, name):
    """Opens pika blocking connections that are closed after the test."""
    opened = []

    def open_connection(**parameters):
        settings = pika.URLParameters(url)
        for key, value in parameters.items():
            setattr(settings, key, value)
        opened.append(pika.BlockingConnection(settings))
        return opened[-1]

    yield open_connection
    for connection in opened:
        try:
            if connection.is_open:
                connection.close()
        except AMQPError:
            # Tests that make the broker close a connection leave it half closed.
            assert connection.is_closed


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    return connection.channel()
