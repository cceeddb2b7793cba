"""A full disk: nothing is confirmed, publishers are blocked, consumers go on, and so does all when there is space."""

import os
import subprocess
import threading
import time

import pika
import pytest
from broker import Broker
from conftest import wait_until

PERSISTENT = pika.BasicProperties(delivery_mode=2)
BODY = 20_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MiB with a broker on it; the broker's limit of free space is far below what is tested."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    options = ["--set", "storage.wal_file_size=1MiB", "--set", "storage.disk_free_limit=4KiB"]
    broker = Broker(tmp_path, *options)
    broker.data = mount / "data"
    try:
        broker.start()
        yield broker, mount / "filler"
    finally:
        broker.close()
        subprocess.run(["umount", str(mount)], check=True)


class Publisher(threading.Thread):
    """Publishes until told to stop, and counts what was confirmed; pika waits while it is blocked."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        parameters = pika.URLParameters(broker.url)
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self.channel.queue_declare("q", durable=True)
        self.channel.confirm_delivery()
        self.confirmed = 0
        self.stopping = False

    def run(self):
        while not self.stopping:
            body = b"%08d" % self.confirmed + b"x" * BODY
            self.channel.basic_publish("", "q", body, PERSISTENT, mandatory=True)
            self.confirmed += 1


def stands_still(publisher):
    before = publisher.confirmed
    time.sleep(0.5)
    return publisher.confirmed == before


class Blocked:
    """A connection that publishes while the disk is full."""

    def __init__(self, broker):
        self.connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.reasons, self.ends = [], []
        self.connection.add_on_connection_blocked_callback(lambda _, frame: self.reasons.append(frame.method.reason))
        self.connection.add_on_connection_unblocked_callback(lambda *_: self.ends.append(True))
        self.connection.channel().basic_publish("", "nowhere", b"")

    def reason(self):
        self._wait(lambda: self.reasons)
        return self.reasons[0]

    def wait_for_the_end(self):
        self._wait(lambda: self.ends)
        self.connection.close()

    def _wait(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "no answer"
            self.connection.process_data_events(time_limit=0.1)


def fill(path):
    """Takes what is left of the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(file)


def test_nothing_is_lost_when_the_disk_is_full(small_disk):
    broker, filler = small_disk
    publisher = Publisher(broker)
    publisher.start()
    wait_until(lambda: publisher.confirmed > 20, "the first confirms")
    fill(filler)
    # The files that the write-ahead log has already are filled, then nothing is confirmed any more.
    wait_until(lambda: "no space left" in broker.log(), "a line about the full disk", 30)
    wait_until(lambda: stands_still(publisher), "the end of confirms", 30)
    blocked = Blocked(broker)
    assert blocked.reason() == "low on disk"
    # Consumers and acknowledgements go on, which may even make room.
    consumer = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = consumer.channel()
    for number in range(10):
        method, _, body = channel.basic_get("q")
        assert body[:8] == b"%08d" % number
        channel.basic_ack(method.delivery_tag)
    filler.unlink()
    blocked.wait_for_the_end()
    now = publisher.confirmed
    wait_until(lambda: publisher.confirmed > now + 20, "more confirms", 30)
    publisher.stopping = True
    publisher.join(10)
    consumer.close()
    confirmed = publisher.confirmed
    broker.kill()
    broker.start()
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    found = []
    while True:
        method, _, body = channel.basic_get("q", auto_ack=True)
        if method is None:
            break
        found.append(int(body[:8]))
    connection.close()
    expected = set(range(10, confirmed))
    assert expected <= set(found) and found == sorted(found), f"{sorted(expected - set(found))[:10]} are lost"


def test_a_broker_that_finds_the_disk_full_says_so(small_disk):
    broker, filler = small_disk
    broker.stop()
    fill(filler)
    code, words = broker.start_refused() if not starts(broker) else (0, "")
    if code != 0:
        assert "space" in words.lower() and str(broker.data) in words, words
    filler.unlink()
    if not broker.is_running():
        broker.start()


def starts(broker):
    """Whether there was enough left of the space it had."""
    try:
        broker.start()
    except AssertionError:
        return False
    return True
