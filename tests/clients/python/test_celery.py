"""A Celery application with real workers: prefork with file results, threads with results by message."""

import contextlib
import signal
import threading
import uuid
from datetime import datetime, timedelta, timezone

import pika
import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from broker import Broker
from celery_worker import Worker, names_of
from conftest import delete_all
from support import wait_until

SECONDS = 20


@pytest.fixture(scope="module")
def start_worker(url, tmp_path_factory):
    """Starts workers; all are ended, and their queues deleted, after the module."""
    workers, stems, shared_url = [], set(), url

    def start(stem=None, url=shared_url, **options):
        stem = stem or f"celery-{uuid.uuid4().hex[:8]}"
        if url == shared_url:
            stems.add(stem)
        directory = tmp_path_factory.getbasetemp() / stem
        directory.mkdir(exist_ok=True)
        workers.append(Worker(url, stem, directory, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
    for stem in stems:
        delete_all(url, names_of(stem))


@pytest.fixture(scope="module")
def both_workers(start_worker):
    """The two workers that most tests share, started side by side."""
    queues = ("tasks", "late", "urgent")
    prefork = start_worker(pool="prefork", concurrency=2, queues=queues)
    threads = start_worker(pool="threads", concurrency=2, queues=queues, results="rpc://")
    return prefork.wait_ready(), threads.wait_ready()


@pytest.fixture
def worker(both_workers):
    return both_workers[0]


@pytest.fixture
def rpc_worker(both_workers):
    return both_workers[1]


def consumers(url, queue):
    """The number of consumers of a queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return connection.channel().queue_declare(queue, passive=True).method.consumer_count


def ready_messages(url, queue):
    """The number of ready messages of a queue."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return connection.channel().queue_declare(queue, passive=True).method.message_count


def test_results(worker):
    results = [worker.send("suite.add", number, number) for number in range(20)]
    assert [result.get(timeout=SECONDS) for result in results] == [2 * number for number in range(20)]


def test_results_by_message(rpc_worker):
    """The rpc backend: a reply queue for the client."""
    results = [rpc_worker.send("suite.add", number, 1) for number in range(20)]
    assert [result.get(timeout=SECONDS) for result in results] == list(range(1, 21))


def test_failure(worker):
    with pytest.raises(ValueError, match="on purpose"):
        worker.send("suite.fail", "on purpose").get(timeout=SECONDS)


def test_retries_with_countdown(worker):
    assert worker.send("suite.flaky", 3).get(timeout=SECONDS) == 3


def test_estimated_time_of_arrival(worker):
    eta = datetime.now(timezone.utc) + timedelta(seconds=1)
    ran_at = worker.send("suite.when", eta=eta).get(timeout=SECONDS)
    # Celery keeps milliseconds.
    assert ran_at >= eta.timestamp() - 0.01


@pytest.fixture
def global_worker(global_qos, start_worker):
    """A worker that limits its whole channel, as Celery does with RabbitMQ before 4."""
    broker = Broker("--set", "compatibility.version=3.13.7")
    broker.start()
    worker = start_worker(pool="threads", concurrency=2, queues=("tasks",), url=broker.url).wait_ready()
    yield worker
    worker.close()
    broker.close()


def test_many_countdowns_raise_the_prefetch_limit(global_worker):
    """Each task that waits for its time makes the worker ask for one message more than its limit."""
    worker = global_worker
    results = [worker.send("suite.add", number, 0, countdown=4) for number in range(8)]
    wait_until(lambda: len(worker.inspect().scheduled()[worker.node]) == 8, "the arrival of all", seconds=4)
    assert [result.get(timeout=SECONDS) for result in results] == list(range(8))


def test_chain_and_group(worker):
    signature = worker.signature
    assert chain(signature("suite.add", 1, 2), signature("suite.add", 3), app=worker.app)().get(timeout=SECONDS) == 6
    result = group([signature("suite.add", number, 1) for number in range(5)], app=worker.app)()
    assert result.get(timeout=SECONDS) == [1, 2, 3, 4, 5]


def test_chord(worker):
    header = [worker.signature("suite.add", number, number) for number in range(6)]
    result = chord(header, app=worker.app)(worker.signature("suite.total"))
    assert result.get(timeout=SECONDS) == 30


def test_inspect(both_workers):
    for worker in both_workers:
        assert worker.inspect().ping() == {worker.node: {"ok": "pong"}}
        (queues,) = worker.inspect().active_queues().values()
        assert {queue["name"] for queue in queues} == {f"{worker.stem}.{name}" for name in ("tasks", "late", "urgent")}
        assert "suite.add" in worker.inspect().registered()[worker.node]


def test_events(worker):
    succeeded, heartbeats = {}, threading.Event()
    stop = threading.Event()
    connected = threading.Event()

    def watch():
        handlers = {
            "task-succeeded": lambda event: succeeded.update({event["uuid"]: event["result"]}),
            "worker-heartbeat": lambda _event: heartbeats.set(),
        }
        with worker.app.connection_for_read() as connection:
            receiver = worker.app.events.Receiver(connection, handlers=handlers)
            # The receiver consumes on a connection of its own.
            with receiver.consumer_context() as (own_connection, _channel, _consumers):
                connected.set()
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        own_connection.drain_events(timeout=0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert connected.wait(SECONDS)
        result = worker.send("suite.add", 40, 2)
        wait_until(lambda: result.id in succeeded, "the event")
        assert succeeded[result.id] == "42"
        assert heartbeats.wait(SECONDS)
    finally:
        stop.set()
        thread.join()


def test_revoke_before_the_start(worker):
    task_id = str(uuid.uuid4())
    (answer,) = worker.app.control.revoke(task_id, destination=[worker.node], reply=True, timeout=SECONDS)
    assert "ok" in answer[worker.node]
    result = worker.send("suite.note", "revoked", "must not run", task_id=task_id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert not (worker.notes / "revoked").exists()


def test_terminate_a_running_task(worker):
    result = worker.send("suite.hold", "terminated")
    wait_until((worker.notes / "terminated.log").exists, "the start of the task")
    worker.app.control.revoke(result.id, terminate=True, destination=[worker.node], reply=True, timeout=SECONDS)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert worker.send("suite.add", 1, 1).get(timeout=SECONDS) == 2


def test_cancel_and_add_consumer(worker, url):
    control, queue = worker.app.control, f"{worker.stem}.late"
    control.cancel_consumer(queue, destination=[worker.node], reply=True, timeout=SECONDS)
    # The worker replies before it cancels.
    wait_until(lambda: consumers(url, queue) == 0, "the end of the consumer")
    result = worker.send("suite.add", 2, 2, queue="late")
    assert ready_messages(url, queue) == 1
    assert not result.ready()
    control.add_consumer(queue, destination=[worker.node], reply=True, timeout=SECONDS)
    assert result.get(timeout=SECONDS) == 4


def test_purge(worker, url):
    control, queue = worker.app.control, f"{worker.stem}.urgent"
    control.cancel_consumer(queue, destination=[worker.node], reply=True, timeout=SECONDS)
    # The worker replies before it cancels.
    wait_until(lambda: consumers(url, queue) == 0, "the end of the consumer")
    for _ in range(5):
        worker.send("suite.note", "purged", "must not run", queue="urgent")
    assert ready_messages(url, queue) == 5
    assert worker.app.control.purge() >= 5
    control.add_consumer(queue, destination=[worker.node], reply=True, timeout=SECONDS)
    assert worker.send("suite.add", 3, 3, queue="urgent").get(timeout=SECONDS) == 6
    assert not (worker.notes / "purged").exists()


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_priorities_and_requeueing_when_workers_end(start_worker, url):
    """One life of a queue: a worker is killed, one is shut down, the last one does the rest."""
    options = {"pool": "threads", "concurrency": 1, "queues": ("urgent",)}
    first = start_worker(**options).wait_ready()
    stem, notes, queue = first.stem, first.notes, f"{first.stem}.urgent"
    held = [first.send("suite.hold", name, queue="urgent", priority=10) for name in ("killed", "stopped")]
    wait_until(lambda: lines(notes / "killed.log") == ["start redelivered=False"], "the start of the task")
    for number in (1, 9, 5, 9, 0):
        first.send("suite.note", "order", str(number), queue="urgent", priority=number)
    first.kill()
    # Nothing was acknowledged, so everything is there again.
    wait_until(lambda: ready_messages(url, queue) == 7, "the requeueing")

    (notes / "killed.go").touch()
    second = start_worker(stem, **options).wait_ready()
    wait_until(lambda: lines(notes / "stopped.log"), "the start of the second task")
    assert lines(notes / "killed.log") == ["start redelivered=False", "start redelivered=True", "end"]
    second.process.send_signal(signal.SIGTERM)
    (notes / "stopped.go").touch()
    assert second.process.wait(SECONDS) == 0, second.log()
    # A warm shutdown finishes what runs and gives back what is only fetched.
    assert lines(notes / "stopped.log")[-1] == "end"
    wait_until(lambda: ready_messages(url, queue) == 5, "the requeueing")
    assert not (notes / "order").exists()

    third = start_worker(stem, **options).wait_ready()
    wait_until(lambda: len(lines(notes / "order")) == 5, "the rest")
    assert lines(notes / "order") == ["9", "9", "5", "1", "0"]
    assert [result.get(timeout=SECONDS) for result in held] == [None, None]
    third.stop()
    assert ready_messages(url, queue) == 0
