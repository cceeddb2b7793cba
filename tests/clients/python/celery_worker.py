"""Starts and stops a Celery worker as a child process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from celery_app import make_app
from support import wait_until

SUITE = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 20


class Worker:
    """One `celery worker` and an application that talks to it."""

    def __init__(self, url, stem, directory, *, pool, concurrency, queues, results=None):
        self.stem = stem
        self.notes = directory
        self.app = make_app(url, stem, results or directory.joinpath("results").as_uri())
        directory.joinpath("results").mkdir(exist_ok=True)
        self.node = f"{pool}-{stem}@localhost"
        self._log = directory / f"worker-{os.urandom(4).hex()}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "--app", "celery_app:app", "worker"),
                    *("--pool", pool, "--concurrency", str(concurrency), "--hostname", self.node),
                    *("--queues", ",".join(f"{stem}.{queue}" for queue in queues)),
                    *("--loglevel", "info", "--task-events"),
                ],
                cwd=SUITE,
                env=os.environ
                | {
                    "CELERY_SUITE_BROKER": url,
                    "CELERY_SUITE_STEM": stem,
                    "CELERY_SUITE_RESULTS": self.app.conf.result_backend,
                    "CELERY_SUITE_NOTES": str(directory),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that the processes of the pool can be ended with it.
                start_new_session=True,
            )

    def wait_ready(self):
        wait_until(
            lambda: f"{self.node} ready." in self.log() or self.process.poll() is not None,
            "the start of the worker",
            START_SECONDS,
        )
        assert self.process.poll() is None, self.log()
        return self

    def log(self):
        return self._log.read_text(errors="replace")

    def send(self, task, *arguments, queue="tasks", **options):
        """Sends a task to one of the queues and gives its result object."""
        return self.app.send_task(task, arguments, queue=f"{self.stem}.{queue}", **options)

    def signature(self, task, *arguments):
        return self.app.signature(task, arguments, queue=f"{self.stem}.tasks")

    def inspect(self):
        return self.app.control.inspect(destination=[self.node], timeout=10)

    def stop(self):
        """A warm shutdown: what runs is finished."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0, self.log()

    def kill(self):
        """Ends the worker and the processes of its pool at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self):
        """Stops the worker if it still runs, and the application."""
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.kill()
            if self.app.conf.result_backend.startswith("rpc"):
                self.app.backend.result_consumer.stop()
            self.app.close()


def names_of(stem):
    """The queues and exchanges that do not go away by themselves."""
    queues = [f"{stem}.{queue}" for queue in ("tasks", "late", "urgent")]
    return [*queues, stem, f"{stem}.pidbox", f"reply.{stem}.pidbox", f"{stem}.events"]
