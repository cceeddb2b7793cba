"""The script that is served at /cli/rabbitmqadmin: version 1's commands, what they print and what they do."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from warren import Case


class RabbitmqAdmin(Case):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.script = self.folder / "rabbitmqadmin"
        answer = self.broker.client.send("GET", "/cli/rabbitmqadmin", login=None)
        self.assertEqual(answer.status, 200, answer)
        text = answer.body
        self.script.write_bytes(text if isinstance(text, bytes) else text.encode())

    def run_script(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        host, port = self.broker.client.host, str(self.broker.client.port)
        words = [sys.executable, self.script, "--host", host, "--port", port, *arguments]
        environment = {**os.environ, "HOME": str(self.folder)}
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, env=environment)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def inside(self, *arguments: str, **how: object) -> str:
        return self.run_script(f"--vhost={self.vhost}", *arguments, **how)

    def test_what_is_declared_can_be_listed_used_and_deleted(self) -> None:
        self.assertIn("Usage", self.run_script("--help"))
        self.assertRegex(self.run_script("--version"), r"^rabbitmqadmin \d")
        declared = [
            ("queue", "name=q", "durable=true", "queue_type=classic", 'arguments={"x-max-length":5}'),
            ("exchange", "name=x", "type=topic"),
            ("binding", "source=x", "destination=q", "routing_key=a.#"),
            ("policy", "name=p", "pattern=^q", 'definition={"max-length":3}', "apply-to=queues", "priority=7"),
            ("operator_policy", "name=o", "pattern=^q", 'definition={"max-length":9}', "apply-to=queues"),
            ("vhost_limit", f"vhost={self.vhost}", "name=max-queues", "value=50"),
        ]
        for kind, *words in declared:
            self.assertEqual(self.inside("declare", kind, *words), f"{kind} declared\n")
        self.assertEqual(self.get(f"queues/{self.vhost}/q")["arguments"], {"x-max-length": 5, "x-queue-type": "classic"})
        self.assertEqual(self.get(f"policies/{self.vhost}/p")["priority"], 7)
        table = self.inside("list", "queues", "vhost", "name", "durable")
        border, head, _, row, *_ = table.splitlines()
        self.assertRegex(border, r"^\+-+\+-+\+-+\+$")
        self.assertEqual([cell.strip() for cell in head.strip("|").split("|")], ["vhost", "name", "durable"])
        self.assertEqual([cell.strip() for cell in row.strip("|").split("|")], [self.vhost, "q", "True"])
        self.assertEqual(self.inside("publish", "routing_key=a.b", "exchange=x", "payload=one"), "Message published\n")
        self.assertEqual(self.inside("publish", "routing_key=q", stdin="two"), "Message published\n")
        self.assertIn("NOT routed", self.inside("publish", "routing_key=z", "exchange=x", "payload=lost"))
        found = json.loads(self.inside("-f", "raw_json", "get", "queue=q", "count=5"))
        self.assertEqual([message["payload"] for message in found], ["one", "two"])
        self.assertIn("one", self.inside("get", "queue=q"))
        self.assertEqual(self.inside("purge", "queue", "name=q"), "queue purged\n")
        self.assertEqual(self.inside("get", "queue=q"), "No items\n")
        removed = [
            ("binding", "source=x", "destination_type=queue", "destination=q", "properties_key=a.%23"),
            ("exchange", "name=x"),
            ("queue", "name=q"),
            ("policy", "name=p"),
            ("operator_policy", "name=o"),
            ("vhost_limit", f"vhost={self.vhost}", "name=max-queues"),
        ]
        for kind, *words in removed:
            self.assertEqual(self.inside("delete", kind, *words), f"{kind} deleted\n")
        self.assertEqual(self.get(f"queues/{self.vhost}"), [])

    def test_every_list_and_format(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        kinds = ["users", "vhosts", "connections", "channels", "consumers", "exchanges", "bindings", "permissions"]
        kinds += ["queues", "policies", "operator_policies", "parameters", "vhost_limits", "nodes"]
        for kind in kinds:
            self.assertTrue(self.run_script("list", kind), kind)
        for form in ("raw_json", "pretty_json", "tsv", "long", "table", "kvp", "bash"):
            self.assertIn("amq.topic", self.inside("-f", form, "list", "exchanges", "name"), form)
        self.assertIn("queue_totals.messages", self.run_script("show", "overview"))

    def test_definitions_go_out_and_come_back_with_a_report(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        file = self.folder / "d.json"
        self.assertIn("Exported definitions", self.inside("export", str(file)))
        self.delete(f"queues/{self.vhost}/q")
        definitions = json.loads(file.read_text())
        definitions["queues"].append({"name": "quorum", "durable": True, "arguments": {"x-queue-type": "quorum"}})
        file.write_text("\ufeff" + json.dumps(definitions))
        told = self.inside("import", str(file))
        self.assertIn("Uploaded definitions", told)
        self.assertIn("queues: 1 made, 0 changed, 0 unchanged, 1 skipped\n  skipped queue 'quorum'", told)

    def test_mistakes_end_with_1_and_stars(self) -> None:
        self.assertIn("*** Not found: /api/connections/nope", self.run_script("close", "connection", "name=nope", code=1))
        self.assertIn("*** Access refused: /api/vhosts", self.run_script("--password=x", "list", "vhosts", code=1))
        self.assertIn('*** mandatory argument "type"', self.inside("declare", "exchange", "name=x", code=1))
        self.assertIn("*** Action bogus not understood", self.run_script("bogus", code=1))
        self.put(f"queues/{self.vhost}/q")
        told = self.inside("declare", "queue", "name=q", 'arguments={"x-max-length":6}', code=1)
        self.assertIn("inequivalent arg 'x-max-length'", told)

    def test_the_pages_around_it(self) -> None:
        for path in ("/cli", "/cli/index.html"):
            answer = self.broker.client.send("GET", path, login=None)
            self.assertEqual(answer.status, 200, answer)
            self.assertIn("rabbitmqadmin", str(answer.body))
        self.assertEqual(self.broker.client.send("GET", "/api/auth", login=None).body, {"oauth_enabled": False})
        self.assertEqual(self.get("health/checks/node-is-mirror-sync-critical"), {"status": "ok"})
