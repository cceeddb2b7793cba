"""Starts, stops and kills the broker under test, which keeps its data directory."""

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

SUITE = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 30


def broker_binary() -> Path:
    """The broker binary: `WARREN_BIN`, relative to the suite unless absolute."""
    return SUITE / os.environ.get("WARREN_BIN", "../../target/release/warren")


class Broker:
    """One data directory and the process, or one after the other, that serves it."""

    is_given = False

    def __init__(
        self, directory: Path, *options: str, command: tuple[str, ...] = (), binary: Path | None = None
    ) -> None:
        """`options` are further flags of `warren serve`; `command` goes before the binary."""
        self._options = options
        self._command = command
        self._binary = binary or broker_binary()
        self._log_file = directory / "stderr.log"
        self._process = None
        self.data = directory / "data"
        self.port = 0

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Starts the broker on the port it had before, a free one the first time, and waits until it is ready."""
        lines = self.launch()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            self.kill()
            raise AssertionError(f"no ready line in {START_SECONDS} s\n{self.log_end()}") from None
        listener = re.match(r"ready .*\bamqp=127\.0\.0\.1:(\d+)", line)
        if listener is None:
            self.kill()
            raise AssertionError(f"the broker did not become ready: {line!r}\n{self.log_end()}")
        self.port = int(listener[1])

    def launch(self) -> "queue.Queue[str]":
        """Starts the broker without waiting for anything; what it will write to standard output."""
        with open(self._log_file, "ab") as log:
            self._process = subprocess.Popen(self._command_line(), stdout=subprocess.PIPE, stderr=log, text=True)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read_output, args=(self._process, lines), daemon=True).start()
        return lines

    def start_refused(self) -> tuple[int, str]:
        """Starts the broker, which must end by itself; the exit code, and what it wrote to standard error."""
        ended = subprocess.run(self._command_line(), capture_output=True, text=True, timeout=START_SECONDS)
        assert not ended.stdout.startswith("ready"), f"it accepted connections\n{ended.stderr}"
        return ended.returncode, ended.stderr

    def _command_line(self) -> list:
        ports = ["--amqp-port", str(self.port), "--management-port", "-1", "--prometheus-port", "-1"]
        return [*self._command, self._binary, "serve", "--data-dir", self.data, *ports, *self._options]

    @staticmethod
    def _read_output(process: subprocess.Popen, lines: "queue.Queue[str]") -> None:
        """Passes on every line of standard output and an empty string at its end."""
        with process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put("")

    def stop(self) -> None:
        """Sends SIGTERM; the exit code must be 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the broker ignored SIGTERM for {STOP_SECONDS} s\n{self.log_end()}") from None
        assert code == 0, f"exit code {code} after SIGTERM\n{self.log_end()}"

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._process.kill()
        self._process.wait()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """All that the broker wrote to standard error, in all its lives. The log is written by a thread of its own: what is
        on its way is waited for."""
        if not self._log_file.exists():
            return ""
        for _ in range(20):
            size = self._log_file.stat().st_size
            if not self.is_running():
                break
            time.sleep(0.1)
            if self._log_file.stat().st_size == size:
                break
        return self._log_file.read_text(errors="replace")

    def log_end(self) -> str:
        return self.log()[-8000:]

    def close(self) -> None:
        """Ends the broker if it runs, and checks that it never panicked."""
        if self.is_running():
            self.kill()
        assert "panicked" not in self.log(), self.log_end()


class GivenBroker:
    """A broker that was running before the tests, ended and started by shell commands."""

    is_given = True

    def __init__(self, url: str) -> None:
        self.url = url
        self._commands = {verb: os.environ.get(f"BROKER_{verb.upper()}") for verb in ("start", "stop", "kill")}

    def _run(self, verb: str) -> None:
        subprocess.run(["bash", "-c", self._commands[verb]], check=True, stdin=subprocess.DEVNULL, timeout=120)

    def can(self, verb: str) -> bool:
        return self._commands[verb] is not None

    def start(self) -> None:
        self._run("start")
        address = urlsplit(self.url)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((address.hostname, address.port or 5672)):
                return
            time.sleep(0.1)
        raise AssertionError(f"nobody listens at {self.url}")

    def launch(self) -> None:
        self.start()

    def stop(self) -> None:
        self._run("stop")

    def kill(self) -> None:
        self._run("kill")

    def is_running(self) -> bool:
        return True

    def log(self) -> str:
        return ""

    def log_end(self) -> str:
        return ""

    def close(self) -> None:
        pass
