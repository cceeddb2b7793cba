"""Starts and stops the broker under test as a child process."""

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

SUITE = Path(__file__).resolve().parent
START_SECONDS = 20
STOP_SECONDS = 20


def broker_binary() -> Path:
    """The broker binary: `WARREN_BIN`, relative to the suite unless absolute."""
    return SUITE / os.environ.get("WARREN_BIN", "../../../target/release/warren")


class Broker:
    """One broker process with its own data directory."""

    def __init__(self, *options: str) -> None:
        """`options` are further flags of `warren serve`."""
        self._options = options
        self._directory = Path(tempfile.mkdtemp(prefix="warren-python-"))
        self._process = None
        self.port = 0
        self.tls_port = 0
        self.last_log = ""

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Starts the broker on the port it had before, a free one the first time."""
        log = open(self._directory / "stderr.log", "ab")
        with log:
            self._process = subprocess.Popen(
                [
                    broker_binary(),
                    "serve",
                    "--data-dir",
                    self._directory / "data",
                    "--amqp-port",
                    str(self.port),
                    "--management-port",
                    "-1",
                    "--prometheus-port",
                    "-1",
                    *self._options,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read_output, args=(lines,), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            self.kill()
            raise AssertionError(f"no ready line in {START_SECONDS} s\n{self.log()}") from None
        listener = re.match(r"ready .*\bamqp=127\.0\.0\.1:(\d+)", line)
        if listener is None:
            self.kill()
            raise AssertionError(f"the broker did not become ready: {line!r}\n{self.log()}")
        self.port = int(listener[1])
        if encrypted := re.search(r"\bamqps=127\.0\.0\.1:(\d+)", line):
            self.tls_port = int(encrypted[1])

    def _read_output(self, lines: "queue.Queue[str]") -> None:
        """Passes on every line of standard output and an empty string at its end."""
        with self._process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put("")

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the broker ignored SIGTERM for {STOP_SECONDS} s\n{self.log()}") from None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Stops the broker cleanly and starts it again on the same port."""
        code = self.stop()
        assert code == 0, f"exit code {code} after SIGTERM\n{self.log()}"
        self.start()

    def log(self) -> str:
        """The last part of the broker's log."""
        return self.whole_log()[-8000:]

    def whole_log(self) -> str:
        """The log is written by a thread of its own: what is on its way is waited for."""
        file = self._directory / "stderr.log"
        for _ in range(20):
            size = file.stat().st_size
            time.sleep(0.1)
            if file.stat().st_size == size:
                break
        return file.read_text(errors="replace")

    def close(self) -> None:
        """Stops the broker, checks that it ended well and removes its data."""
        code = self.stop()
        log = self.last_log = self.log()
        shutil.rmtree(self._directory)
        assert code == 0, f"exit code {code} after SIGTERM\n{log}"
