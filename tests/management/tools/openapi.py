#!/usr/bin/env python3
"""Schemathesis against the API description that the broker of MANAGEMENT_URL serves at /api/openapi.json.

Requests made from the description, valid and not, must never be answered with a server error, and every answer must be
described: its status, its content type, its body. The requests come from an administrator of their own, so that
deleting users does not end the run. SCHEMATHESIS names the executable.

  OPENAPI       a description in a file instead of the broker's
  SEED          of the requests (default 1)
  SECONDS       how long (default 120)
  MAX_EXAMPLES  how many requests each operation gets at most in a phase (default 20)
"""

import os
import re
import subprocess
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

from checks import MANAGEMENT_URL, Api, Mismatch, Report, expect

USER, PASSWORD = "schemathesis-administrator", "schemathesis"
SECONDS = int(os.environ.get("SECONDS", "120"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Operations that end the broker or what the run itself needs, and the stream of events, which has no end.
EXCLUDED = r"/(shutdown|stop|restart|drain|maintenance|warren/events)(/|$)"
# 503 is how a health check fails, and described for each; nothing else above 499 may come.
SETTINGS = '''[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
'''

report = Report()


def main() -> None:
    api = Api()
    location = os.environ.get("OPENAPI", f"{MANAGEMENT_URL}/api/openapi.json")
    if "OPENAPI" not in os.environ and (status := api.call("GET", "openapi.json").status) != 200:
        report.fail("the broker describes its API", f"expected status 200 of {location}, got {status}")
        report.finish()
    api.write("PUT", f"users/{USER}", {"password": PASSWORD, "tags": "administrator"})
    api.write("PUT", f"permissions/%2F/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder:
        run(location, Path(folder))
    report.check("the broker still answers", lambda: Api(user=USER, password=PASSWORD).get("overview"))
    api.call("DELETE", f"users/{USER}")
    report.finish()


def run(location: str, folder: Path) -> None:
    written = folder / "report.xml"
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command = [os.environ["SCHEMATHESIS"], "--no-color", "--config-file", str(settings), "run", location, "--origin", MANAGEMENT_URL]
    command += ["--auth", f"{USER}:{PASSWORD}", "--checks", CHECKS, "--exclude-path-regex", EXCLUDED]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get("MAX_EXAMPLES", "20")]
    command += ["--max-time", str(SECONDS), "--seed", os.environ.get("SEED", "1"), "--generation-database", "none"]
    command += ["--request-timeout", "10", "--continue-on-failure", "--no-shrink", "--warnings", "off"]
    command += ["--suppress-health-check", "all", "--report", "junit", "--report-junit-path", str(written)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS * 4)
    if not written.exists():
        report.fail("schemathesis runs", f"code {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
        return
    operations = xml.parse(written).getroot().findall(".//testcase")
    report.check("operations were tested", lambda: expect(len(operations) > 0, True, "operations"))
    for operation in operations:
        report.check(operation.get("name", "?"), lambda operation=operation: conforms(operation))
    report.check("schemathesis ends well", lambda: expect(done.returncode, 0, done.stdout[-600:]))


def conforms(operation: xml.Element) -> None:
    problems = [*operation.findall("failure"), *operation.findall("error")]
    if problems:
        text = " | ".join(f"{problem.get('message', '')} {problem.text or ''}" for problem in problems)
        raise Mismatch(re.sub(r"\s+", " ", text)[:1200])


if __name__ == "__main__":
    main()
