"""Fixtures shared by every module: the broker, unique names, deadlines."""

import logging
import os
import time
import uuid

import pika
import pytest
from broker import Broker, GivenBroker, broker_binary

# A connection that is lost is what these tests are about.
logging.getLogger("pika").setLevel(logging.CRITICAL)

SMALL_FILES = ["--set", "storage.wal_file_size=1MiB"]
"""Flags that make the log use many files."""
LARGE_MESSAGES = ["--set", "amqp.max_message_size=32MiB"]


def pytest_sessionstart(session):
    """Says once what is missing instead of failing every test."""
    if not os.environ.get("AMQP_URL") and not session.config.option.collectonly and not broker_binary().exists():
        pytest.exit(f"there is no broker at {broker_binary()}: build it, or set WARREN_BIN or AMQP_URL", 2)


@pytest.fixture
def broker(tmp_path):
    """A broker that runs, and that the test may stop, kill and start."""
    if url := os.environ.get("AMQP_URL"):
        given = GivenBroker(url)
        if not (given.can("stop") and given.can("kill") and given.can("start")):
            pytest.skip("BROKER_STOP, BROKER_KILL and BROKER_START do not say how to restart the given broker")
        yield given
        return
    own = Broker(tmp_path, *SMALL_FILES, *LARGE_MESSAGES)
    own.start()
    yield own
    own.close()


@pytest.fixture
def name(broker):
    """Makes unique names; the queues and exchanges that have them are deleted after the test."""
    stem = uuid.uuid4().hex[:8]
    given = []

    def make(label):
        given.append(f"{label}-{stem}")
        return given[-1]

    yield make
    if given and isinstance(broker, GivenBroker):
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            for each in given:
                channel.queue_delete(each)
                channel.exchange_delete(each)


def wait_until(condition, what="the condition", seconds=15, step=0.02):
    """Calls `condition` until it returns something true, which is returned."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(step)
    return result
