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
        try:
            while not self.stopping:
                body = b"%08d" % self.confirmed + b"x" * BODY
                self.channel.basic_publish("", "q", body, PERSISTENT, mandatory=True)
                self.confirmed += 1
        except pika.exceptions.AMQPError:
            # Blocked when the broker ends.
            if not self.stopping:
                raise


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
    # Or the little that is left is noticed before.
    is_told = lambda log: "no space left" in log or "disk alarm is set" in log  # noqa: E731
    wait_until(lambda: is_told(broker.log()), "a line about the full disk", 30)
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


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_finds_the_disk_full_starts_and_goes_on(small_disk, end):
    broker, filler = small_disk
    publisher = Publisher(broker)
    publisher.start()
    wait_until(lambda: publisher.confirmed > 20, "the first confirms")
    wait_until(lambda: (broker.data / "reserve").exists(), "the reserve")
    fill(filler)
    wait_until(lambda: stands_still(publisher), "the end of confirms", 30)
    publisher.stopping = True
    confirmed = publisher.confirmed
    fill_more(filler)
    for life in range(2):
        if end == "kill":
            broker.kill()
        else:
            broker.stop()
        fill_more(filler)
        broker.start()
        # It says that it is full, ...
        blocked = Blocked(broker)
        assert blocked.reason() == "low on disk"
        blocked.connection.close()
        # ... and serves consumers, whose acknowledgements count.
        take(broker, range(life * 10, life * 10 + 10))
    delete_in_vain = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = delete_in_vain.channel()
    channel.queue_declare("transient", exclusive=True)
    channel.queue_delete("transient")
    delete_in_vain.close()
    blocked = Blocked(broker)
    filler.unlink()
    blocked.wait_for_the_end()
    take(broker, range(20, confirmed))
    again = Publisher(broker)
    again.start()
    wait_until(lambda: again.confirmed > 20, "confirms when there is space again", 30)
    again.stopping = True
    again.join(10)


def fill_more(path):
    """Takes what has become free since."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(file)


def take(broker, numbers):
    """Takes the messages with these numbers, in order, for good."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    for number in numbers:
        method, _, body = channel.basic_get("q")
        assert method is not None, f"message {number} is lost"
        assert body[:8] == b"%08d" % number
        channel.basic_ack(method.delivery_tag)
    # Answered when the acknowledgements were taken; they are on the disk within a moment.
    channel.queue_declare("q", passive=True)
    time.sleep(0.3)
    connection.close()


def test_a_new_broker_on_a_disk_without_a_byte_waits_for_some(tmp_path, small_disk):
    first, filler = small_disk
    first.stop()
    fill(filler)
    fill_more(filler)
    broker = Broker(tmp_path, "--set", "storage.wal_file_size=1MiB", "--set", "storage.disk_free_limit=4KiB")
    broker.data = filler.parent / "other"
    try:
        lines = broker.launch()
        wait_until(lambda: "it waits for space" in broker.log(), "a line about the wait")
        assert broker.is_running() and lines.empty()
        filler.unlink()
        assert lines.get(timeout=30).startswith("ready ")
    finally:
        broker.close()
