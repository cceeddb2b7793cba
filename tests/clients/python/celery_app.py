"""The Celery application of the suite. A worker gets its settings from the environment:

CELERY_SUITE_BROKER   the URL of the broker
CELERY_SUITE_STEM     what the names of all queues and exchanges begin with
CELERY_SUITE_RESULTS  the URL of the result backend
CELERY_SUITE_NOTES    a directory for what the tasks leave behind"""

import os
import time
from pathlib import Path

from celery import Celery, shared_task
from kombu import Exchange, Queue

WAIT_SECONDS = 30


def make_app(broker: str, stem: str, results: str) -> Celery:
    """The application. Queues: `stem`.tasks, `stem`.urgent with priorities and `stem`.late."""
    app = Celery("suite", broker=broker, backend=results)
    exchange = Exchange(stem, "direct")
    app.conf.update(
        task_default_queue=f"{stem}.tasks",
        task_default_exchange=stem,
        task_default_routing_key=f"{stem}.tasks",
        task_queues=[
            Queue(f"{stem}.tasks", exchange, f"{stem}.tasks"),
            Queue(f"{stem}.late", exchange, f"{stem}.late"),
            Queue(f"{stem}.urgent", exchange, f"{stem}.urgent", queue_arguments={"x-max-priority": 10}),
        ],
        control_exchange=stem,
        event_exchange=f"{stem}.events",
        task_acks_late=True,
        task_track_started=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_connection_retry_on_startup=True,
        result_chord_retry_interval=0.1,
        broker_transport_options={"confirm_publish": True},
    )
    return app


def notes() -> Path:
    return Path(os.environ["CELERY_SUITE_NOTES"])


def note(name: str, text: str) -> None:
    """Adds a line to a file; lines of this size are written at once."""
    with open(notes() / name, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@shared_task(name="suite.add")
def add(left, right):
    return left + right


@shared_task(name="suite.total")
def total(numbers):
    return sum(numbers)


@shared_task(name="suite.fail")
def fail(text):
    raise ValueError(text)


@shared_task(name="suite.note")
def write_note(name, text):
    note(name, text)


@shared_task(name="suite.when")
def when():
    return time.time()


@shared_task(name="suite.flaky", bind=True, max_retries=5)
def flaky(self, failures):
    """Fails so many times and tells the number of the retry that succeeds."""
    if self.request.retries < failures:
        raise self.retry(countdown=0.05, exc=ValueError("not yet"))
    return self.request.retries


@shared_task(name="suite.hold", bind=True)
def hold(self, name):
    """Runs until the file `name`.go is there; leaves a line in `name`.log when it starts and ends."""
    note(f"{name}.log", f"start redelivered={self.request.delivery_info['redelivered']}")
    deadline = time.monotonic() + WAIT_SECONDS
    while not (notes() / f"{name}.go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name}.go")
        time.sleep(0.02)
    note(f"{name}.log", "end")


if "CELERY_SUITE_BROKER" in os.environ:
    app = make_app(
        os.environ["CELERY_SUITE_BROKER"],
        os.environ["CELERY_SUITE_STEM"],
        os.environ["CELERY_SUITE_RESULTS"],
    )
