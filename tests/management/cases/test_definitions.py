"""Export and import of definitions: what other releases wrote, nothing by halves, and the same again after a round trip."""

import base64
import hashlib
import json
import time

import pika
from warren import EVERYTHING, Answer, Case, Warren

SALT = bytes.fromhex("908DC60A")


def password_hash(algorithm: str, password: str) -> str:
    return base64.b64encode(SALT + hashlib.new(algorithm, SALT + password.encode()).digest()).decode()


def permission(vhost: str, user: str) -> dict:
    return {"vhost": vhost, "user": user, **EVERYTHING}


def export_of_rabbitmq_3(vhost: str) -> dict:
    """As RabbitMQ 3.5 and 3.8 wrote them: old hashes, mirroring, tags as text, lists for empty maps."""
    return {
        "rabbit_version": "3.5.8",
        "users": [
            {"name": f"{vhost}.md5", "password_hash": password_hash("md5", "test12"), "tags": "management,policymaker"},
            {
                "name": f"{vhost}.sha256",
                "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "administrator",
                "limits": [],
            },
            {
                "name": f"{vhost}.sha512",
                "password_hash": password_hash("sha512", "test12"),
                "hashing_algorithm": "rabbit_password_hashing_sha512",
                "tags": "",
            },
        ],
        "vhosts": [{"name": vhost, "limits": []}],
        "permissions": [permission(vhost, f"{vhost}.{algorithm}") for algorithm in ("md5", "sha256", "sha512")],
        "parameters": [{"vhost": vhost, "component": "federation-upstream", "name": "up", "value": {"uri": "amqp://"}}],
        "global_parameters": [{"name": f"{vhost}-note", "value": {"owner": "team"}}],
        "policies": [
            {
                "vhost": vhost,
                "name": "mirrored",
                "pattern": "^two",
                "apply-to": "all",
                "priority": 0,
                "definition": {"ha-mode": "all", "ha-sync-mode": "automatic"},
            },
            {
                "vhost": vhost,
                "name": "mirrored-and-short",
                "pattern": "^orders$",
                "apply-to": "queues",
                "priority": 2,
                "definition": {"ha-mode": "exactly", "ha-params": 2, "max-length": 10},
            },
        ],
        "queues": [
            {"vhost": vhost, "name": "orders", "durable": True, "auto_delete": False, "arguments": {}},
            {"vhost": vhost, "name": "transient", "durable": False, "auto_delete": False, "arguments": []},
            {
                "vhost": vhost,
                "name": "lazy",
                "durable": True,
                "auto_delete": False,
                "arguments": {"x-queue-mode": "lazy"},
            },
        ],
        "exchanges": [
            {
                "vhost": vhost,
                "name": "in",
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": True,
                "arguments": [],
            }
        ],
        "bindings": [
            {
                "source": "in",
                "vhost": vhost,
                "destination": "orders",
                "destination_type": "queue",
                "routing_key": "#",
                "arguments": [],
            }
        ],
    }


def comparable(definitions: dict) -> bytes:
    """The bytes of definitions whose lists are sorted: lists of definitions are sets."""
    ordered = {
        key: sorted(value, key=lambda entry: json.dumps(entry, sort_keys=True)) if isinstance(value, list) else value
        for key, value in definitions.items()
    }
    return json.dumps(ordered, sort_keys=True).encode()


class Import(Case):
    def test_an_export_of_rabbitmq_3_is_imported(self) -> None:
        self.post("definitions", export_of_rabbitmq_3(self.vhost))
        for algorithm in ("md5", "sha256", "sha512"):
            self.broker.connect(self.vhost, f"{self.vhost}.{algorithm}", "test12").close()
            with self.assertRaises(pika.exceptions.ProbableAuthenticationError):
                self.broker.connect(self.vhost, f"{self.vhost}.{algorithm}", "test13")
        user = self.get(f"users/{self.vhost}.md5")
        self.assertEqual(user["tags"], ["management", "policymaker"])
        self.assertEqual(user["hashing_algorithm"], "rabbit_password_hashing_md5")
        queues = {queue["name"]: queue for queue in self.get(f"queues/{self.vhost}")}
        self.assertEqual(sorted(queues), ["lazy", "orders", "transient"])
        self.assertEqual(self.get(f"queues/{self.vhost}/orders")["effective_policy_definition"], {"max-length": 10})
        self.assertTrue(self.get(f"exchanges/{self.vhost}/in")["internal"])
        sources = {binding["source"] for binding in self.get(f"queues/{self.vhost}/orders/bindings")}
        self.assertEqual(sources, {"", "in"})
        self.assertEqual(self.get(f"global-parameters/{self.vhost}-note")["value"], {"owner": "team"})

    def test_what_cannot_be_imported_is_told(self) -> None:
        definitions = export_of_rabbitmq_3(self.vhost)
        internal = {"destination_type": "exchange", "destination": "federation: in", "routing_key": "", "arguments": {}}
        definitions["bindings"].append({"vhost": self.vhost, "source": "in", **internal})
        topics = {"user": f"{self.vhost}.md5", "exchange": "federation: in", "write": "", "read": ""}
        definitions["topic_permissions"] = [{"vhost": self.vhost, **topics}]
        answer = self.post("definitions?report=true", definitions)
        parts = {
            "policies": "policy 'mirrored'",
            "parameters": "federation-upstream",
            "bindings": "binding from exchange 'in'",
            "topic_permissions": "topic permission of user",
        }
        for kind, part in parts.items():
            skipped = answer.body["kinds"][kind]["skipped"]
            self.assertIn(part, "\n".join(f"{remark['name']}: {remark['reason']}" for remark in skipped))
        [partly] = answer.body["kinds"]["policies"]["partly"]
        self.assertIn("'ha-mode'", partly["reason"])
        # The same again: the report says what happened, every time.
        again = self.post("definitions?report=true", definitions)
        self.assertEqual((again.body["made"], again.body["changed"]), (0, 0), again.body)
        self.assertEqual(again.body["skipped"], answer.body["skipped"])
        self.assertEqual(again.body["unchanged"], answer.body["made"] + answer.body["changed"] + answer.body["unchanged"])
        sums = f"made=0, changed=0, unchanged={again.body['unchanged']}, skipped={again.body['skipped']}"
        self.assertEqual(self.post("definitions", definitions).headers["x-import-summary"], sums)

    def test_a_dry_run_says_what_an_import_would_do_and_does_not(self) -> None:
        definitions = {"queues": [{"vhost": self.vhost, "name": "q", "durable": True, "arguments": {}}]}
        answer = self.post("definitions?dry_run=true", definitions)
        self.assertTrue(answer.body["dry_run"])
        self.assertEqual(answer.body["kinds"]["queues"]["made"], [f"queue 'q' in vhost '{self.vhost}'"])
        self.assertEqual(self.get(f"queues/{self.vhost}"), [])

    def test_an_export_changes_nothing_where_it_came_from(self) -> None:
        answer = self.post("definitions?report=true", self.get("definitions"))
        self.assertEqual((answer.body["made"], answer.body["changed"], answer.body["skipped"]), (0, 0, 0), answer.body)

    def test_what_nobody_misses_is_not_skipped(self) -> None:
        definitions = {"global_parameters": [{"name": "internal_cluster_id", "value": "abc"}]}
        answer = self.post("definitions?report=true", definitions)
        self.assertEqual(answer.body["skipped"], 0, answer.body)
        [needless] = answer.body["kinds"]["global_parameters"]["needless"]
        self.assertEqual(needless["reason"], "the other broker's own affair")

    def test_an_empty_body_defines_nothing(self) -> None:
        for body in (b"", b" \n", b"\xef\xbb\xbf"):
            self.assertEqual(self.post_bytes(body).status, 204)

    def post_bytes(self, body: bytes) -> Answer:
        headers = {"content-type": "application/json"}
        return self.broker.client.send("POST", "/api/definitions", login=("guest", "guest"), headers=headers, body=body)

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        body = b"\xef\xbb\xbf" + json.dumps({"vhosts": [{"name": self.vhost, "description": "marked"}]}).encode()
        self.assertEqual(self.post_bytes(body).status, 204)
        self.assertEqual(self.get(f"vhosts/{self.vhost}")["description"], "marked")

    def test_limits_that_were_cleared_are_imported(self) -> None:
        self.put(f"vhost-limits/{self.vhost}/max-queues", {"value": 1})
        cleared = {"vhost": self.vhost, "component": "vhost-limits", "name": "limits", "value": []}
        answer = self.post("definitions?report=true", {"parameters": [cleared]})
        self.assertEqual((answer.body["changed"], answer.body["skipped"]), (1, 0), answer.body)
        self.assertEqual(self.get(f"vhost-limits/{self.vhost}"), [])
        answer = self.post("definitions?report=true", {"parameters": [cleared]})
        self.assertEqual((answer.body["changed"], answer.body["unchanged"]), (0, 1), answer.body)

    def test_a_classic_queue_in_a_vhost_of_quorum_queues(self) -> None:
        definitions = {
            "vhosts": [{"name": self.vhost, "default_queue_type": "quorum"}],
            "queues": [
                {"vhost": self.vhost, "name": "classic", "type": "classic", "durable": True, "arguments": {}},
                {"vhost": self.vhost, "name": "untyped", "durable": True, "arguments": {}},
                {"vhost": self.vhost, "name": "transient", "durable": False, "arguments": {}},
            ],
        }
        answer = self.post("definitions?report=true", definitions)
        [partly] = answer.body["kinds"]["vhosts"]["partly"]
        self.assertEqual(partly["name"], f"vhost '{self.vhost}'")
        self.assertIn("declarations without a type will be refused; write 'classic'", partly["reason"])
        self.assertEqual([queue["name"] for queue in self.get(f"queues/{self.vhost}")], ["classic", "transient"])
        [skipped] = answer.body["kinds"]["queues"]["skipped"]
        self.assertEqual(skipped["name"], f"queue 'untyped' in vhost '{self.vhost}'")
        self.assertIn("'quorum' is the default type of its virtual host", skipped["reason"])

    def test_a_default_type_that_is_not_there_is_told_once_however_it_is_set(self) -> None:
        def told(kind: str) -> int:
            words = f"vhost '{self.vhost}': its default queue type is '{kind}', and this version has no {kind} queues: " \
                    "declarations without a type will be refused; write 'classic'"
            return self.broker.log().count(words)

        def assert_told(kind: str, times: int) -> None:
            # The log is written beside what is answered.
            until = time.monotonic() + 5
            while told(kind) < times and time.monotonic() < until:
                time.sleep(0.05)
            self.assertEqual(told(kind), times)

        for kind in ("quorum", "quorum", "classic"):
            self.put(f"vhosts/{self.vhost}", {"default_queue_type": kind})
        self.put(f"vhosts/{self.vhost}", {"description": "nothing is said of queues"})
        self.put(f"vhosts/{self.vhost}", {"default_queue_type": "stream"})
        assert_told("stream", 1)
        assert_told("quorum", 1)
        self.post("definitions", {"vhosts": [{"name": self.vhost, "default_queue_type": "quorum"}]})
        assert_told("quorum", 2)

    def test_what_the_broker_refuses_is_told(self) -> None:
        """A file that is valid, and a broker that has another queue of that name."""
        self.put(f"queues/{self.vhost}/q", {"durable": True, "arguments": {"x-max-length": 5}})
        queue = {"vhost": self.vhost, "name": "q", "durable": True, "arguments": {"x-max-length": 6}}
        answer = self.post("definitions?report=true", {"queues": [queue, queue, {**queue, "arguments": {}}]})
        reasons = [remark["reason"] for remark in answer.body["kinds"]["queues"]["skipped"]]
        kept = "it is there already and stays as it is: arguments.x-max-length is 5, in the file 6"
        self.assertEqual(reasons, [kept, "it stands in the file before, otherwise, and the first one counts"])
        self.assertEqual(answer.body["unchanged"], 1, "the same again")

    def test_refusals_have_rabbitmqs_texts(self) -> None:
        self.put(f"vhost-limits/{self.vhost}/max-queues", {"value": 1})
        self.put(f"queues/{self.vhost}/q")
        permissions = [permission(self.vhost, "nobody")]
        self.refused("POST", "definitions", {"permissions": permissions}, 400, '{no_such_user,<<"nobody">>}')
        answer = self.call("POST", "definitions?report=true", {"permissions": permissions})
        explanation = f"permission of user 'nobody' in vhost '{self.vhost}': there is no such user"
        self.assertEqual((answer.body["reason"], answer.body["explanation"]), ('{no_such_user,<<"nobody">>}', explanation))
        queues = [{"vhost": self.vhost, "name": "r", "durable": True, "auto_delete": False, "arguments": {}}]
        text = (
            f'Adding 1 queue(s) to virtual host "{self.vhost}" would exceed the limit of 1 queue(s).\n\n'
            "This virtual host currently has 1 queue(s) defined.\n\nImport aborted!"
        )
        self.refused("POST", "definitions", {"queues": queues}, 400, text)
        text = 'Please create virtual host "none" prior to importing definitions.'
        self.refused("POST", "definitions", {"queues": [{**queues[0], "vhost": "none"}]}, 400, text)

    def test_nothing_is_imported_when_something_is_wrong(self) -> None:
        wrong = {
            "policies": [{"name": "bad", "pattern": "(", "definition": {"max-length": 1}}],
            "bindings": [{"source": "x", "destination": "q", "destination_type": "queue", "arguments": {"n": None}}],
            "queues": [{"name": "bad", "durable": True, "arguments": {"x-message-ttl": -1}}],
            "exchanges": [{"name": "bad", "type": "fanout", "durable": "perhaps"}],
            "permissions": [{"user": "guest", "configure": "(", "write": "", "read": ""}],
            "users": [{"name": "bad", "password_hash": "!", "tags": ""}],
            "parameters": [{"component": "vhost-limits", "name": "limits", "value": {"max-cats": 1}}],
            "topic_permissions": [{"user": "guest", "exchange": "amq.topic", "write": "("}],
            "vhosts": [{"name": "bad", "default_queue_type": "bogus"}],
            "global_parameters": [{"value": 1}],
            "bindings ": [{"source": "amq.match", "destination": "orders", "destination_type": "queue", "arguments": {"x-match": "some"}}],
            "exchanges ": [{"name": "h", "type": "x-consistent-hash", "arguments": {"hash-property": "bogus"}}],
            "permissions ": [{"user": "nobody", **EVERYTHING}],
            "queues ": [{"name": f"q{number}", "durable": True, "arguments": {}} for number in range(3)],
        }
        before = self.get("definitions")
        for kind, entries in wrong.items():
            with self.subTest(kind):
                definitions = export_of_rabbitmq_3(f"{self.vhost}.new")
                entries = [{"vhost": f"{self.vhost}.new", **entry} for entry in entries]
                definitions["vhosts"][0]["limits"] = {"max-queues": 5}
                kind = kind.strip()
                definitions[kind] = definitions.get(kind, []) + entries
                answer = self.call("POST", "definitions", definitions)
                self.assertEqual(answer.status, 400, answer)
                self.assertEqual(comparable(self.get("definitions")), comparable(before))

    def test_a_form_is_imported(self) -> None:
        definitions = {"queues": [{"vhost": self.vhost, "name": "q", "durable": True, "arguments": {}}]}
        text = json.dumps(definitions)
        body = (
            '--boundary\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
            '--boundary\r\nContent-Disposition: form-data; name="file"; filename="d.json"\r\n'
            f'Content-Type: application/json\r\n\r\n{text}\r\n--boundary--\r\n'
        )
        headers = {"content-type": 'multipart/form-data; boundary="boundary"'}
        answer = self.broker.client.send(
            "POST", "/api/definitions", login=("guest", "guest"), headers=headers, body=body.encode()
        )
        self.assertEqual(answer.status, 204, answer)
        self.assertEqual([queue["name"] for queue in self.get(f"queues/{self.vhost}")], ["q"])

    def test_what_exists_is_kept_and_the_rest_is_added(self) -> None:
        self.put(f"queues/{self.vhost}/q", {"durable": True, "arguments": {"x-max-length": 5}})
        queues = [{"name": name, "durable": True, "arguments": {"x-max-length": 6}} for name in ("q", "r")]
        self.post(f"definitions/{self.vhost}", {"queues": queues})
        lengths = {queue["name"]: queue["arguments"]["x-max-length"] for queue in self.get(f"queues/{self.vhost}")}
        self.assertEqual(lengths, {"q": 5, "r": 6})

    def test_definitions_of_a_vhost_come_back_in_another(self) -> None:
        fill(self, self.vhost)
        self.put(f"vhosts/{self.vhost}.copy")
        exported = self.get(f"definitions/{self.vhost}")
        self.post(f"definitions/{self.vhost}.copy", exported)
        again = self.get(f"definitions/{self.vhost}.copy")
        for key in ("queues", "exchanges", "bindings", "policies", "parameters"):
            self.assertEqual(comparable({key: again[key]}), comparable({key: exported[key]}))
            self.assertTrue(exported[key], key)


def fill(case: Case, vhost: str) -> None:
    """One of everything that definitions can say."""
    case.put(f"vhosts/{vhost}", {"description": "d", "tags": ["a", "b"], "default_queue_type": "classic"})
    user = f"{vhost}.user"
    case.put(f"users/{user}", {"password": "p", "tags": "monitoring,own"})
    case.put(f"user-limits/{user}/max-channels", {"value": 7})
    case.put(f"permissions/{vhost}/{user}", {"configure": "^a", "write": "", "read": ".*"})
    case.put(f"exchanges/{vhost}/x", {"type": "topic", "arguments": {"alternate-exchange": "hidden"}})
    case.put(f"exchanges/{vhost}/hidden", {"type": "fanout", "internal": True, "durable": False, "auto_delete": False})
    case.put(f"queues/{vhost}/q", {"arguments": {"x-max-length": 5, "x-overflow": "reject-publish", "t": {"l": [1.5]}}})
    case.put(f"queues/{vhost}/%C3%A4%2F", {"auto_delete": True})
    case.post(f"bindings/{vhost}/e/x/q/q", {"routing_key": "a.#", "arguments": {"n": 1}})
    case.post(f"bindings/{vhost}/e/x/e/hidden", {"routing_key": "é"})
    case.put(f"topic-permissions/{vhost}/{user}", {"exchange": "x", "write": "^a", "read": ""})
    case.put(f"policies/{vhost}/p", {"pattern": "^q", "definition": {"max-length": 3}, "apply-to": "queues", "priority": -1})
    case.put(f"operator-policies/{vhost}/o", {"pattern": "", "definition": {"expires": 86400000}, "apply-to": "queues"})
    case.put(f"vhost-limits/{vhost}/max-queues", {"value": 100})
    case.put(f"global-parameters/{vhost}", {"value": {"n": [1, None, {"x": True}]}})


class RoundTrip(Case):
    def test_what_was_exported_is_exported_again_by_another_broker(self) -> None:
        fill(self, self.vhost)
        exported = self.get("definitions")
        other = Warren()
        try:
            answer = other.client.call("POST", "/api/definitions", exported)
            self.assertEqual(answer.status, 204, answer)
            again = other.client.call("GET", "/api/definitions").body
            for key in sorted(set(exported) | set(again)):
                self.assertEqual(comparable({key: again.get(key)}), comparable({key: exported.get(key)}), key)
            answer = other.client.call("POST", "/api/definitions", again)
            self.assertEqual(answer.status, 204, answer)
            repeated = other.client.call("GET", "/api/definitions").body
            self.assertEqual(comparable(repeated), comparable(exported))
        finally:
            other.remove()

    def test_a_compressed_export_is_the_same(self) -> None:
        fill(self, self.vhost)
        headers = {"accept-encoding": "gzip"}
        answer = self.broker.client.send("GET", "/api/definitions", login=("guest", "guest"), headers=headers)
        self.assertEqual(answer.headers["content-encoding"], "gzip")
        self.assertEqual(comparable(answer.body), comparable(self.get("definitions")))

    def test_a_restart_keeps_everything(self) -> None:
        fill(self, self.vhost)
        self.post(f"vhosts/{self.vhost}/deletion/protection")
        channel = self.connect().channel()
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"kept", pika.BasicProperties(delivery_mode=2))
        before = self.get("definitions")
        self.assertEqual(self.broker.stop(), 0)
        self.broker.start()
        after = self.get("definitions")
        # What is not durable goes, and its bindings with it.
        before["exchanges"] = [entry for entry in before["exchanges"] if entry["name"] != "hidden"]
        before["bindings"] = [entry for entry in before["bindings"] if entry["destination"] != "hidden"]
        self.assertEqual(comparable(after), comparable(before))
        self.assertTrue(self.get(f"vhosts/{self.vhost}")["protected_from_deletion"])
        self.assertEqual(self.get(f"queues/{self.vhost}/q")["operator_policy"], "o")
        self.broker.connect(self.vhost, f"{self.vhost}.user", "p").close()
        self.assertEqual(self.take("q"), ["kept"])
