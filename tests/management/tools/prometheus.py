#!/usr/bin/env python3
"""What Prometheus makes of the broker of PROMETHEUS_URL: promtool, a scraping server, the panels of dashboards.tsv.

PROMETHEUS_BIN names the folder of `prometheus` and `promtool`. The load runs over AMQP_URL; one queue is made over
MANAGEMENT_URL.
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

from checks import AMQP_URL, PROMETHEUS_URL, Api, Mismatch, Report, eventually, expect, expect_in, quote
from load import Load

FOLDER = Path(os.environ["PROMETHEUS_BIN"])
SCRAPED_SECONDS = 15
ODD_NAME = 'tools-"quoted"-and\\slashed'
FAMILIES = [
    "queue_coarse_metrics",
    "queue_metrics",
    "queue_consumer_count",
    "connection_coarse_metrics",
    "connection_metrics",
    "connection_churn_metrics",
    "channel_metrics",
    "channel_exchange_metrics",
    "channel_queue_metrics",
    "channel_queue_exchange_metrics",
    "channel_process_metrics",
    "queue_delivery_metrics",
    "exchange_metrics",
    "node_coarse_metrics",
    "node_metrics",
    "ra_metrics",
    "auth_attempt_metrics",
    "auth_attempt_detailed_metrics",
    "vhost_status",
    "exchange_names",
    "exchange_bindings",
]
PAGES = [
    "/metrics",
    "/metrics/per-object",
    "/metrics/detailed",
    "/metrics/memory-breakdown",
    f"/metrics/detailed?{'&'.join(f'family={family}' for family in FAMILIES)}",
    "/metrics/detailed?vhost=%2F&family=queue_coarse_metrics",
]
# promtool's advice on names. The names are RabbitMQ's, which dashboards depend on; anything else it says is a mistake.
NAMING = [
    r'counter metrics should have "_total" suffix',
    r'non-counter metrics should not have "_total" suffix',
    r'should not have "_\w+" suffix',
    r"use base unit",
    r"metric names should not contain abbreviated units",
    r"metric name should not include type",
]
JOIN = (
    "* on(instance, job) group_left(rabbitmq_cluster, rabbitmq_node) "
    'rabbitmq_identity_info{{rabbitmq_cluster="{cluster}", namespace="tests", rabbitmq_endpoint="{endpoint}"}}'
)
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: rabbitmq
    static_configs: [{{targets: ["{target}"], labels: {{namespace: tests}}}}]
  - job_name: per-object
    metrics_path: /metrics/per-object
    static_configs: [{{targets: ["{target}"], labels: {{namespace: tests}}}}]
  - job_name: detailed
    metrics_path: /metrics/detailed
    params: {{family: [queue_coarse_metrics, connection_churn_metrics]}}
    static_configs: [{{targets: ["{target}"], labels: {{namespace: tests}}}}]
"""

report = Report()


def main() -> None:
    with Load(AMQP_URL) as load, tempfile.TemporaryDirectory(prefix="prometheus-") as folder:
        eventually(lambda: expect(load.rounds > 3, True, "rounds of the load"))
        for page in PAGES:
            report.check(f"promtool check metrics < {page[:60]}", lambda page=page: accepted(page))
        report.check("every family asked for is told", detailed)
        report.check("a name with quotes and a backslash", odd_name)
        server = Server(Path(folder))
        try:
            scraped(server, load)
            panels(server)
        finally:
            server.stop()
    report.finish()


def page_text(page: str) -> str:
    with urllib.request.urlopen(PROMETHEUS_URL + page, timeout=10) as response:
        expect(response.status, 200, page)
        expect_in("text/plain", response.headers["content-type"], page)
        return response.read().decode()


def accepted(page: str) -> None:
    text = page_text(page)
    expect_in("rabbitmq_identity_info{", text, page)
    done = subprocess.run([FOLDER / "promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    wrong = [line for line in lines if not any(re.search(pattern, line) for pattern in NAMING)]
    # 3 is the code for advice.
    if done.returncode not in (0, 3) or wrong:
        raise Mismatch(f"expected no complaint, got code {done.returncode}: {'; '.join(wrong[:6])}")


def detailed() -> None:
    text = page_text("/metrics/detailed?family=queue_coarse_metrics")
    if not re.search(r'^rabbitmq_detailed_queue_messages_ready\{.*queue="tools-load-work".*\} ', text, re.MULTILINE):
        raise Mismatch(f"expected a series of the queue tools-load-work, got {text[:300]!r}")
    expect("rabbitmq_detailed_connections_opened_total" in text, False, "a family that was not asked for")


def odd_name() -> None:
    """Label values are escaped."""
    api, path = Api(), f"queues/%2F/{quote(ODD_NAME)}"
    api.write("PUT", path, {})

    def told() -> None:
        accepted("/metrics/per-object")
        expect_in('queue="tools-\\"quoted\\"-and\\\\slashed"', page_text("/metrics/per-object"))

    try:
        eventually(told)
    finally:
        api.call("DELETE", path)


class Server:
    """A Prometheus process that scrapes the broker, and its HTTP API."""

    def __init__(self, folder: Path) -> None:
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(target=urllib.parse.urlsplit(PROMETHEUS_URL).netloc))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
        options += [f"--web.listen-address=127.0.0.1:{port}", "--web.console.templates=", "--web.console.libraries="]
        self._log = folder / "log"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([FOLDER / "prometheus", *options], stdout=log, stderr=log)

    def query(self, expression: str) -> list[dict]:
        """The series that the expression gives now."""
        parameters = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=10) as response:
                return json.load(response)["data"]["result"]
        except urllib.error.HTTPError as refused:
            raise Mismatch(f"Prometheus refuses {expression}: {refused.read().decode()[:400]}") from None
        except OSError as problem:
            raise Mismatch(f"Prometheus does not answer: {problem}; {self._log.read_text()[-500:]}") from None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def scraped(server: Server, load: Load) -> None:
    for job in ("rabbitmq", "per-object", "detailed"):

        def is_up(job: str = job) -> None:
            values = [series["value"][1] for series in server.query(f'up{{job="{job}"}}')]
            expect(values, ["1"], f"up of {job}")

        report.check(f"a real Prometheus scrapes: up of {job}", lambda is_up=is_up: eventually(is_up, 20))
    wanted = f'count_over_time(up{{job="rabbitmq"}}[{SCRAPED_SECONDS * 2}s])'

    def long_enough() -> None:
        counts = [int(series["value"][1]) for series in server.query(wanted)]
        expect(bool(counts) and counts[0] >= SCRAPED_SECONDS, True, f"{SCRAPED_SECONDS} scrapes")

    before = load.rounds
    report.check(f"{SCRAPED_SECONDS} scrapes, one a second", lambda: eventually(long_enough, SCRAPED_SECONDS * 2))
    report.check("the load goes on meanwhile", lambda: expect(load.rounds > before + 5, True, "rounds"))
    report.check(
        "no scrape failed",
        lambda: expect(server.query("min_over_time(up[60s]) == 0"), [], "targets that were down"),
    )


def panels(server: Server) -> None:
    identity = server.query('rabbitmq_identity_info{job="rabbitmq"}')
    if not identity:
        report.fail("rabbitmq_identity_info", "expected a series, got none")
        return
    labels = identity[0]["metric"]
    join = JOIN.format(cluster=labels.get("rabbitmq_cluster"), endpoint=labels.get("rabbitmq_endpoint"))
    quorum = server.query("rabbitmq_raft_commit_index")
    for line in Path(__file__).with_name("dashboards.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        dashboard, panel, wanted, query = line.split("\t")
        name = f"{dashboard}: {panel}"
        if wanted == "quorum" and not quorum:
            report.skip(name, "needs quorum")
        else:
            joined = query.replace("@", join)
            report.check(name, lambda q=joined, w=wanted: eventually(lambda: answers(server, q, w), 5))


def answers(server: Server, query: str, wanted: str) -> None:
    values = [float(series["value"][1]) for series in server.query(query)]
    if not values:
        raise Mismatch(f"expected a series, got none for {query}")
    if wanted == "more" and not any(value > 0 for value in values):
        raise Mismatch(f"expected a value above 0, got {values[:5]} for {query}")


if __name__ == "__main__":
    main()
