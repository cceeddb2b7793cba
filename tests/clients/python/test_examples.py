"""The tutorial programs in examples/python, each with its counterpart."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import delete_all
from support import wait_until

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "python"
SECONDS = 30


class Program:
    """One running example."""

    def __init__(self, url, log, script, *arguments):
        self._log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", EXAMPLES / script, *arguments],
                env=os.environ | {"AMQP_URL": url},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def lines(self):
        return self._log.read_text().splitlines()

    def wait_ready(self):
        """Waits for the line that a receiver prints when it listens."""
        wait_until(lambda: self.lines() or self.process.poll() is not None, "the start", SECONDS)
        assert self.process.poll() is None and self.lines()[0].startswith("Waiting for "), self.lines()
        return self

    def finish(self):
        """Waits for the end and gives what was printed."""
        assert self.process.wait(SECONDS) == 0, self.lines()
        return self.lines()


@pytest.fixture
def start(url, tmp_path):
    """Starts examples; those still running at the end of the test are ended."""
    programs = []

    def start_program(script, *arguments):
        programs.append(Program(url, tmp_path / f"{len(programs)}.log", script, *arguments))
        return programs[-1]

    # The examples have fixed names, so an earlier run must not have left anything in them.
    names = ["hello", "task_queue", "logs", "direct_logs", "topic_logs", "rpc_queue"]
    delete_all(url, names)
    yield start_program
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()
    delete_all(url, names)


def test_hello_world(start):
    # The sender may come first: the queue keeps the message.
    assert start("send.py").finish() == ["Sent 'Hello World!'"]
    receiver = start("receive.py", "--count", "2").wait_ready()
    start("send.py").finish()
    assert receiver.finish()[1:] == ["Received 'Hello World!'"] * 2


def test_work_queue(start):
    workers = [start("worker.py", "--count", "2").wait_ready() for _ in range(2)]
    tasks = [f"task {number}" for number in range(4)]
    for sender, task in [(start("new_task.py", *task.split()), task) for task in tasks]:
        assert sender.finish() == [f"Sent {task!r}"]
    outputs = [worker.finish()[1:] for worker in workers]
    assert sorted(line for output in outputs for line in output) == sorted(
        [f"Done with {task!r}" for task in tasks] + [f"Received {task!r}" for task in tasks]
    )


def test_publish_subscribe(start):
    receivers = [start("receive_logs.py", "--count", "2") for _ in range(2)]
    for receiver in receivers:
        receiver.wait_ready()
    assert start("emit_log.py").finish() == ["Sent 'info: Hello World!'"]
    start("emit_log.py", "second", "line").finish()
    for receiver in receivers:
        assert receiver.finish()[1:] == ["info: Hello World!", "second line"]


def test_routing(start):
    errors = start("receive_logs_direct.py", "--count", "1", "error")
    everything = start("receive_logs_direct.py", "--count", "3", "info", "warning", "error")
    errors.wait_ready()
    everything.wait_ready()
    for severity in ("info", "debug", "warning", "error"):
        start("emit_log_direct.py", severity, "The", severity).finish()
    assert errors.finish()[1:] == ["error: The error"]
    assert everything.finish()[1:] == ["info: The info", "warning: The warning", "error: The error"]


def test_topics(start):
    critical = start("receive_logs_topic.py", "--count", "2", "kern.*", "*.critical")
    everything = start("receive_logs_topic.py", "--count", "3", "#")
    critical.wait_ready()
    everything.wait_ready()
    for key in ("kern.info", "cron.info", "cron.critical"):
        assert start("emit_log_topic.py", key, "line").finish() == [f"Sent {key}: 'line'"]
    assert critical.finish()[1:] == ["kern.info: line", "cron.critical: line"]
    assert everything.finish()[1:] == ["kern.info: line", "cron.info: line", "cron.critical: line"]


def test_remote_procedure_calls(start):
    server = start("rpc_server.py", "--count", "2").wait_ready()
    assert start("rpc_client.py").finish() == ["Requesting fibonacci(30)", "Got 832040"]
    assert start("rpc_client.py", "10").finish() == ["Requesting fibonacci(10)", "Got 55"]
    assert server.finish()[1:] == ["fibonacci(30)", "fibonacci(10)"]


def test_publisher_confirms(start):
    lines = start("publisher_confirms.py", "250").finish()
    ways = ["one by one", "in windows of 100", "all at once"]
    assert [re.sub(r" in [\d.]+ s$", "", line) for line in lines] == [
        f"Published and confirmed 250 messages {way}" for way in ways
    ]


def test_every_example_is_in_the_readme():
    readme = (EXAMPLES / "README.md").read_text()
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert scripts
    assert [script for script in scripts if script not in readme] == []
