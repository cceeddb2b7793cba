#!/usr/bin/env python3
"""Runs a command with a broker of its own: `with_broker.py COMMAND...`.

The command finds the broker in AMQP_URL, MANAGEMENT_URL and PROMETHEUS_URL (none of them ends with a slash). Afterwards
the broker must end with code 0 on SIGTERM. When MANAGEMENT_URL and AMQP_URL are set already, the command gets that
broker (PROMETHEUS_URL is then optional) and nothing is started or stopped.

  WARREN_BIN  the broker's executable
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30
LISTENERS = ("amqp", "management", "prometheus")


def main() -> int:
    command = sys.argv[1:]
    if "MANAGEMENT_URL" in os.environ and "AMQP_URL" in os.environ:
        return subprocess.run(command).returncode
    with tempfile.TemporaryDirectory(prefix="warren-tools-") as folder:
        return run_with_broker(command, Path(folder))


def run_with_broker(command: list[str], folder: Path) -> int:
    log = folder / "log"
    broker = start(folder, log)
    try:
        line = ready_line(broker)
        if line is None:
            print(f"FAIL the broker becomes ready: expected a line, got none; its log:\n{tail(log)}", flush=True)
            return 1
        listeners = addresses(line)
        if listeners is None:
            print(f"FAIL the broker names its listeners: expected {', '.join(LISTENERS)}, got {line!r}", flush=True)
            return 1
        code = subprocess.run(command, env={**os.environ, **listeners}).returncode
        broker.send_signal(signal.SIGTERM)
        try:
            ended = broker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            ended = f"nothing, {STOP_SECONDS} s after SIGTERM"
        if ended != 0:
            print(f"FAIL the broker stops: expected exit code 0, got {ended}")
            code = code or 1
        if code != 0:
            print(f"end of the broker's log:\n{tail(log)}", file=sys.stderr)
        return code
    finally:
        if broker.poll() is None:
            broker.kill()
            broker.wait()


def start(folder: Path, log: Path) -> subprocess.Popen:
    binary = os.environ.get("WARREN_BIN")
    if not binary:
        sys.exit("WARREN_BIN names no broker")
    arguments = [binary, "serve", "--data-dir", str(folder / "data")]
    for listener in LISTENERS:
        arguments += [f"--{listener}-port", "0"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=open(log, "wb"))


def ready_line(broker: subprocess.Popen) -> str | None:
    """The line that names the listeners; None when the broker ended or stayed silent."""
    deadline = time.monotonic() + START_SECONDS
    text = b""
    while b"\n" not in text:
        readable, _, _ = select.select([broker.stdout], [], [], max(0, deadline - time.monotonic()))
        data = os.read(broker.stdout.fileno(), 4096) if readable else b""
        if not data:
            return None
        text += data
    line = text.decode().splitlines()[0]
    return line if line.startswith("ready ") else None


def addresses(line: str) -> dict[str, str] | None:
    """The environment variables for the listeners of a ready line, None when it lacks one."""
    listeners = dict(re.findall(r"(\w+)=(\S+)", line))
    if not set(LISTENERS) <= set(listeners):
        return None
    return {
        "AMQP_URL": f"amqp://guest:guest@{listeners['amqp']}",
        "MANAGEMENT_URL": f"http://{listeners['management']}",
        "PROMETHEUS_URL": f"http://{listeners['prometheus']}",
    }


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


if __name__ == "__main__":
    sys.exit(main())
