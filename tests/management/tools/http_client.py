#!/usr/bin/env python3
"""Runs the integration tests that the crate rabbitmq_http_client ships, against MANAGEMENT_URL and AMQP_URL.

The tests name fixed ports; they run from a copy of the crate under TOOLS_DIR, where these are replaced, and without
the tests of TLS, which the crate ignores unless it finds certificates, and which would need OpenSSL to build. What a
broker needs beforehand (a user, a virtual host, the cluster's name) is set up here, as the crate's own scripts do.
Tests for plugins that the broker does not list are skipped. The argument `build` only builds.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

from checks import AMQP_URL, MANAGEMENT_URL, Api, Report, declares, expect, quote

VERSION = "0.93.0"
FOLDER = Path(os.environ["TOOLS_DIR"], "http-client")
BUILD = Path(os.environ["TOOLS_DIR"], "build")
FEATURES = "async,blocking,tabled,zeroize"
# The crate's tests need these; a broker without the plugin does not pass the tests whose names match.
PLUGINS = [
    ("rabbitmq_shovel_management", "shovel"),
    ("rabbitmq_federation_management", "federation"),
    ("rabbitmq_stream_management", "stream_(connection|consumer|publisher)|protocol_listener_succeeds"),
]
ADDRESSES = """
pub static ENDPOINT: std::sync::LazyLock<&str> = std::sync::LazyLock::new(|| env::var("API_URL").unwrap().leak());
pub static AMQP_ENDPOINT: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("amqp://localhost:{}", amqp_port()));
pub fn amqp_port() -> u16 { env::var("AMQP_PORT").unwrap().parse().unwrap() }
pub fn management_port() -> u16 { env::var("MANAGEMENT_PORT").unwrap().parse().unwrap() }
"""
# A test that reads statistics may come before them: the crate's own instructions repeat each failed test up to 3 times.
ATTEMPTS = 3

report = Report()


def main() -> None:
    binary = build(sources())
    if sys.argv[1:] == ["build"]:
        return
    prepare_broker()
    tests = [line.removesuffix(": test") for line in run(binary, "--list").splitlines() if line.endswith(": test")]
    tests = without_plugins(tests)
    results = attempt(binary, tests)
    for _ in range(ATTEMPTS - 1):
        failed = [test for test, (result, _) in results.items() if result == "FAILED"]
        if failed:
            results |= attempt(binary, failed)
    show(results)
    report.finish()


def sources() -> Path:
    """A copy of the crate with replaced addresses, made once."""
    copy = FOLDER / f"rabbitmq_http_client-{VERSION}"
    if (copy / "replaced").exists():
        return copy
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(fetched(), copy)
    helpers = copy / "tests/integration/test_helpers.rs"
    text = re.sub(r"pub const (AMQP_)?ENDPOINT: .*\n", "", helpers.read_text()) + ADDRESSES
    text = re.sub(r'format!\("\{AMQP_ENDPOINT\}(.*)"\)', r'format!("{}\1", *AMQP_ENDPOINT)', text)
    helpers.write_text(text)
    for test in (copy / "tests/integration").glob("*.rs"):
        text = test.read_text().replace("(ENDPOINT", "(*ENDPOINT")
        text = text.replace("&hostname(), 5672,", "&hostname(), crate::test_helpers::amqp_port(),")
        text = text.replace("port_listener(15672)", "port_listener(crate::test_helpers::management_port())")
        text = text.replace('starts_with("rabbit@")', "contains('@')")
        test.write_text(text)
    modules = copy / "tests/integration/main.rs"
    modules.write_text(re.sub(r"mod \w+_tls_tests;\n", "", modules.read_text()))
    (copy / "replaced").touch()
    return copy


def fetched() -> Path:
    """Where cargo keeps the published crate: a package that depends on it makes cargo fetch it."""
    package = FOLDER / "fetch"
    package.mkdir(parents=True, exist_ok=True)
    (package / "lib.rs").touch()
    (package / "Cargo.toml").write_text(
        '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[lib]\npath = "lib.rs"\n'
        f'[dependencies]\nrabbitmq_http_client = {{ version = "={VERSION}", default-features = false }}\n'
    )
    metadata = subprocess.run(
        ["cargo", "metadata", "--quiet", "--format-version", "1"], cwd=package, check=True, stdout=subprocess.PIPE
    )
    packages = json.loads(metadata.stdout)["packages"]
    return next(Path(p["manifest_path"]).parent for p in packages if p["name"] == "rabbitmq_http_client")


def build(crate: Path) -> str:
    """Builds the tests and returns the executable."""
    command = ["cargo", "test", "--quiet", "--locked", "--no-run", "--test", "integration", "--no-default-features"]
    command += ["--features", FEATURES, "--target-dir", str(BUILD), "--message-format", "json"]
    done = subprocess.run(command, cwd=crate, check=True, stdout=subprocess.PIPE, text=True)
    artifacts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(a["executable"] for a in artifacts if a.get("target", {}).get("name") == "integration")


def prepare_broker() -> None:
    api = Api()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    vhost = quote("rust/http/api/client")
    api.write("PUT", "users/rust3", {"password": "rust3", "tags": ""})
    api.write("PUT", f"permissions/{quote('/')}/rust3", everything)
    api.write("PUT", f"vhosts/{vhost}", {})
    api.write("PUT", f"permissions/{vhost}/guest", everything)
    api.write("PUT", "cluster-name", {"name": "rabbitmq@localhost"})


def without_plugins(tests: list[str]) -> list[str]:
    """Reports and leaves out the tests of plugins and of queue types that the broker does not have."""
    enabled = {plugin for node in Api().get("nodes") for plugin in node.get("enabled_plugins", [])}
    for plugin, pattern in PLUGINS:
        if plugin not in enabled:
            skipped = [test for test in tests if re.search(pattern, test)]
            tests = [test for test in tests if test not in skipped]
            report.skip(f"{len(skipped)} tests of {pattern}", f"the broker has no {plugin}")
    for queue_type in ("quorum", "stream"):
        if not declares(Api(), queue_type):
            skipped = [test for test in tests if queue_type in test and "quorum_critical" not in test]
            tests = [test for test in tests if test not in skipped]
            report.skip(f"{len(skipped)} tests of the queue type {queue_type}", "the broker refuses to declare it")
    return tests


def attempt(binary: str, tests: list[str]) -> dict[str, tuple[str, str]]:
    """Runs the tests; for each its result (`ok` or `FAILED`) and the text of its panic."""
    output = run(binary, "--test-threads", "2", "--exact", *tests)
    results = re.findall(r"^test (\S+)(?: - \S+)* \.\.\. (.*)$", output, re.MULTILINE)
    output = re.sub(r"^proptest: .*\n", "", output, flags=re.MULTILINE)
    panics = dict(re.findall(r"^---- (\S+) stdout ----\n+((?:.+\n)+)", output, re.MULTILINE))
    return {test: (result, panics.get(test, "").strip()) for test, result in results}


def run(binary: str, *arguments: str) -> str:
    api, amqp = urllib.parse.urlsplit(MANAGEMENT_URL), urllib.parse.urlsplit(AMQP_URL)
    environment = {
        **os.environ,
        "API_URL": f"{MANAGEMENT_URL}/api",
        "MANAGEMENT_PORT": str(api.port),
        "AMQP_PORT": str(amqp.port),
        "RUST_BACKTRACE": "0",
    }
    done = subprocess.run([binary, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    return done.stdout


def show(results: dict[str, tuple[str, str]]) -> None:
    """A line for each module whose tests all passed, and for each test that did not."""
    modules: dict[str, list[str]] = {}
    for test, (result, panic) in sorted(results.items()):
        if result == "FAILED":
            report.fail(test, panic)
        else:
            modules.setdefault(test.split("::")[0], []).append(result)
    for module, found in modules.items():
        report.check(f"{module}, {len(found)} tests", lambda found=found: expect(set(found), {"ok"}))


if __name__ == "__main__":
    main()
