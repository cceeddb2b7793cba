#!/usr/bin/env python3
"""Runs the tests that the Go client rabbit-hole ships in its module, against MANAGEMENT_URL and AMQP_URL.

The tests name fixed ports; they run from a copy of the module under TOOLS_DIR, where these are replaced. What a broker
needs beforehand is set up here, as the module's own script does. Tests for plugins that the broker does not list are
skipped. The argument `build` only builds.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

from checks import AMQP_URL, Api, Report, declares, quote

MODULE = "github.com/michaelklishin/rabbit-hole/v3"
VERSION = "v3.5.0"
FOLDER = Path(os.environ["TOOLS_DIR"], "rabbit-hole")
# Patterns of tests with the plugin they need. Those of runtime parameters make one of federation's.
PLUGINS = [
    ("rabbitmq_shovel_management", "shovel"),
    ("rabbitmq_federation_management", "federation"),
    ("rabbitmq_federation_management", "when the parameter does not exist creates|when there are runtime parameters"),
    ("rabbitmq_stream_management", "stream connections"),
]
ADDRESSES = """package rabbithole

import (
	"net/url"
	"os"
	"strconv"
)

func managementURL() string { return os.Getenv("MANAGEMENT_URL") }

func amqpAddress() string { return os.Getenv("AMQP_ADDRESS") }

func amqpPort() uint {
	address, err := url.Parse("amqp://" + amqpAddress())
	if err != nil {
		panic(err)
	}
	port, err := strconv.ParseUint(address.Port(), 10, 16)
	if err != nil {
		panic(err)
	}
	return uint(port)
}
"""
REPLACED = [
    ('"http://127.0.0.1:15672"', "managementURL()"),
    ('@localhost:5672/%s", username, password,', '@%s/%s", username, password, amqpAddress(),'),
    ('"@localhost:5672/%2f"', '"@" + amqpAddress() + "/%2f"'),
    ("(5672)", "(amqpPort())"),
    ("port-listener/5672", "port-listener/PORT"),
]
# A test that reads statistics may come before them.
ATTEMPTS = 3

report = Report()


def main() -> None:
    binary = build(sources())
    if sys.argv[1:] == ["build"]:
        return
    prepare_broker()
    show(run(binary, plugins_missing()))
    report.finish()


def sources() -> Path:
    """A copy of the module with replaced addresses, made once."""
    copy = FOLDER / VERSION
    if (copy / "addresses_test.go").exists():
        return copy
    shutil.rmtree(copy, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = go("mod", "download", "-json", f"{MODULE}@{VERSION}", folder=FOLDER)
    shutil.copytree(json.loads(found)["Dir"], copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for test in copy.glob("*_test.go"):
        text = test.read_text()
        for old, new in REPLACED:
            text = text.replace(old, new)
        test.write_text(text)
    (copy / "addresses_test.go").write_text(ADDRESSES)
    return copy


def build(module: Path) -> Path:
    go("test", "-c", "-o", "suite", ".", folder=module)
    return module / "suite"


def go(*arguments: str, folder: Path) -> str:
    return subprocess.run(["go", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def prepare_broker() -> None:
    api = Api()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    vhost = quote("rabbit/hole")
    api.write("PUT", "users/policymaker", {"password": "policymaker", "tags": "policymaker"})
    api.write("PUT", f"permissions/{quote('/')}/policymaker", everything)
    api.write("PUT", f"vhosts/{vhost}", {})
    api.write("PUT", f"permissions/{vhost}/guest", everything)
    api.write("PUT", "cluster-name", {"name": "rabbitmq@localhost"})
    # A test gives topic permissions for this exchange, which must exist since RabbitMQ 4.
    api.write("PUT", f"exchanges/{quote('/')}/foobar", {"type": "topic"})


def plugins_missing() -> list[str]:
    """Patterns of the tests for what the broker does not have."""
    enabled = {plugin for node in Api().get("nodes") for plugin in node.get("enabled_plugins", [])}
    missing = [(plugin, pattern) for plugin, pattern in PLUGINS if plugin not in enabled]
    for plugin, pattern in missing:
        report.skip(f"tests of {pattern}", f"the broker has no {plugin}")
    patterns = [pattern for _, pattern in missing]
    if not declares(Api(), "quorum"):
        report.skip("PUT /queues/{vhost}/{queue} declares a queue", "the broker refuses to declare a quorum queue")
        patterns.append(r"PUT /queues/\{vhost\}/\{queue\} declares a queue$")
    return patterns


def run(binary: Path, patterns: list[str]) -> list[dict]:
    """Runs the tests but those that match a pattern, and returns what is written of each."""
    written = binary.parent / "report.json"
    written.unlink(missing_ok=True)
    skip = [f"--ginkgo.skip=(?i){'|'.join(patterns)}"] if patterns else []
    subprocess.run(
        [binary, f"--ginkgo.json-report={written}", f"--ginkgo.flake-attempts={ATTEMPTS}", *skip],
        cwd=binary.parent,
        env={
            **os.environ,
            "AMQP_ADDRESS": urllib.parse.urlsplit(AMQP_URL).netloc.rpartition("@")[2],
            "GOMEGA_DEFAULT_EVENTUALLY_TIMEOUT": "10s",
        },
        stdout=subprocess.DEVNULL,
        timeout=900,
    )
    return [test for suite in json.loads(written.read_text()) for test in suite["SpecReports"] or []]


def show(tests: list[dict]) -> None:
    """A line for each group of tests that all passed, and for each test that did not."""
    passed: dict[str, int] = {}
    for test in tests:
        if test["LeafNodeType"] != "It" or test["State"] == "skipped":
            continue
        group = " ".join(test["ContainerHierarchyTexts"][1:])
        if test["State"] == "passed":
            passed[group] = passed.get(group, 0) + 1
            continue
        failure = test.get("Failure", {})
        text = re.sub(r"\s+", " ", failure.get("Message", test["State"]) + failure.get("ForwardedPanic", ""))
        line = failure.get("FailureNodeLocation", {}).get("LineNumber", 0)
        report.fail(f"{group}: {test['LeafNodeText']} (line {line})", text[:600])
    for group, count in passed.items():
        report.check(f"{group}, {count} tests", lambda: None)


if __name__ == "__main__":
    main()
