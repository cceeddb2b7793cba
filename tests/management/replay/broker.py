"""The broker under test: started for the run, or one that is running already."""

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

SUITE = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 30


class RunningBroker:
    """A broker that is not ours to start or stop: `MANAGEMENT_URL` and `AMQP_URL`."""

    def __init__(self) -> None:
        self.management_url = os.environ["MANAGEMENT_URL"]
        self.amqp_url = os.environ["AMQP_URL"]
        self.prometheus_port = int(os.environ.get("PROMETHEUS_PORT", "15692"))

    def __enter__(self) -> "RunningBroker":
        return self

    def __exit__(self, *_failure) -> None:
        pass


class StartedBroker:
    """`warren serve` on free ports with a data directory of its own, which is removed afterwards."""

    def __init__(self) -> None:
        self._binary = SUITE / os.environ.get("WARREN_BIN", "../../../target/release/warren")
        if not self._binary.exists():
            raise SystemExit(f"no broker at {self._binary}: set WARREN_BIN")
        self._directory = Path(tempfile.mkdtemp(prefix="warren-replay-"))
        self._log_file = self._directory / "stderr.log"
        self._process = None

    def __enter__(self) -> "StartedBroker":
        ports = ["--amqp-port", "0", "--management-port", "0", "--prometheus-port", "0"]
        command = [self._binary, "serve", "--data-dir", self._directory / "data", *ports]
        with open(self._log_file, "ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(self._process.stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            line = ""
        listeners = dict(re.findall(r"\b(\w+)=(\S+:\d+)", line))
        if not line.startswith("ready ") or not {"amqp", "management"} <= set(listeners):
            log = self._log_file.read_text(errors="replace")[-2000:]
            self.__exit__()
            raise SystemExit(f"the broker did not become ready: {line!r}\n{log}")
        self.management_url = f"http://guest:guest@{listeners['management']}"
        self.amqp_url = f"amqp://guest:guest@{listeners['amqp']}"
        self.prometheus_port = int(listeners.get("prometheus", ":0").rpartition(":")[2])
        return self

    def __exit__(self, *_failure) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def broker_under_test() -> RunningBroker | StartedBroker:
    return RunningBroker() if os.environ.get("MANAGEMENT_URL") else StartedBroker()
