"""The rules of HTTP that hold everywhere: names, methods, headers, sizes, compression, empty maps."""

import json
from urllib.parse import quote, unquote

import pika
from warren import Case

NOT_FOUND = {"error": "Object Not Found", "reason": "Not Found"}


class Names(Case):
    def test_a_name_is_decoded_once_after_the_path_was_split(self) -> None:
        self.put(f"queues/{self.vhost}/a%2Fb%2520c")
        self.assertEqual([queue["name"] for queue in self.get(f"queues/{self.vhost}")], ["a/b%20c"])
        self.assertEqual(self.get(f"queues/{self.vhost}/a%2Fb%2520c")["name"], "a/b%20c")
        self.assertEqual(self.call("GET", f"queues/{self.vhost}/a%2Fb%20c").body, NOT_FOUND)
        self.assertEqual(self.get("vhosts/%2F")["name"], "/")
        self.assertEqual(self.get("exchanges/%2f/amq%2Etopic")["name"], "amq.topic")

    def test_a_binding_is_found_at_its_location(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        for key in ("", "a.#", "a/b c%~", "ä~~", "~"):
            for arguments in ({}, {"x-match": "any", "n": 1}):
                with self.subTest(key=key, arguments=arguments):
                    body = {"routing_key": key, "arguments": arguments}
                    answer = self.call("POST", f"bindings/{self.vhost}/e/amq.headers/q/q", body)
                    self.assertEqual(answer.status, 201)
                    found = [
                        binding
                        for binding in self.get(f"bindings/{self.vhost}/e/amq.headers/q/q")
                        if (binding["routing_key"], binding["arguments"]) == (key, arguments)
                    ]
                    self.assertEqual(len(found), 1)
                    once = found[0]["properties_key"]
                    self.assertEqual(unquote(answer.headers["location"]), f"q/{once}")
                    for properties in (once, quote(once, safe="")):
                        path = f"bindings/{self.vhost}/e/amq.headers/q/q/{properties}"
                        self.assertEqual(self.get(path)["properties_key"], once)
                    self.delete(path)

    def test_the_default_exchange_has_an_empty_segment_or_a_name(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        for path in (f"bindings/{self.vhost}/e//q/q", f"bindings/{self.vhost}/e/amq.default/q/q"):
            self.assertEqual([binding["routing_key"] for binding in self.get(path)], ["q"], path)


class Rules(Case):
    def send(self, method: str, path: str, headers: dict | None = None, body: bytes | None = None):
        return self.broker.client.send(
            method, f"/api/{path}", login=("guest", "guest"), headers=headers or {}, body=body
        )

    def test_empty_maps_may_be_empty_lists(self) -> None:
        self.put(f"queues/{self.vhost}/q", {"arguments": []})
        self.put(f"exchanges/{self.vhost}/x", {"type": "fanout", "arguments": []})
        self.post(f"bindings/{self.vhost}/e/x/q/q", {"routing_key": "", "arguments": []})
        body = {"properties": [], "routing_key": "q", "payload": "1", "payload_encoding": "string"}
        self.assertEqual(self.post(f"exchanges/{self.vhost}/x/publish", body).body, {"routed": True})
        body["properties"] = {"headers": []}
        self.assertEqual(self.post(f"exchanges/{self.vhost}/x/publish", body).body, {"routed": True})
        self.assertEqual(self.take("q"), ["1", "1"])

    def test_what_is_empty_is_shown_as_a_map(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        self.publish("amq.default", "q")
        body = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
        self.assertEqual(self.post(f"queues/{self.vhost}/q/get", body).body[0]["properties"], {})
        self.assertEqual(self.get(f"bindings/{self.vhost}")[0]["arguments"], {})

    def test_a_protected_vhost_is_not_deleted(self) -> None:
        self.post(f"vhosts/{self.vhost}/deletion/protection")
        answer = self.call("DELETE", f"vhosts/{self.vhost}")
        reason = f"Refusing to delete virtual host '{self.vhost}' because it is protected from deletion"
        self.assertEqual((answer.status, answer.body), (412, {"error": "precondition_failed", "reason": reason}))
        self.assertTrue(self.get(f"vhosts/{self.vhost}")["protected_from_deletion"])
        self.delete(f"vhosts/{self.vhost}/deletion/protection")
        self.delete(f"vhosts/{self.vhost}")

    def test_head_is_get_without_the_body(self) -> None:
        for path in ("overview", f"vhosts/{self.vhost}", "queues", "users/guest/permissions"):
            answer, whole = self.send("HEAD", path), self.send("GET", path)
            self.assertEqual((answer.status, answer.body), (200, None))
            for header in ("content-type", "cache-control", "allow", "vary"):
                self.assertEqual(answer.headers[header], whole.headers[header], header)
        self.assertEqual(self.send("HEAD", f"queues/{self.vhost}/none").status, 404)

    def test_options_need_no_login(self) -> None:
        answer = self.broker.client.send("OPTIONS", f"/api/queues/{self.vhost}/q")
        self.assertEqual((answer.status, answer.body), (200, None))
        self.assertEqual(answer.headers["allow"], "HEAD, GET, PUT, DELETE, OPTIONS")

    def test_only_json_is_offered(self) -> None:
        for accept, status in (
            ("text/html", 406),
            ("application/bert", 406),
            ("application/bert, application/json;q=0.1", 200),
            ("application/*", 200),
            ("text/html,*/*;q=0.8", 200),
        ):
            self.assertEqual(self.send("GET", "overview", {"accept": accept}).status, status, accept)

    def test_answers_are_compressed_on_request(self) -> None:
        plain = self.send("GET", "exchanges")
        compressed = self.send("GET", "exchanges", {"accept-encoding": "gzip"})
        self.assertEqual(compressed.headers["content-encoding"], "gzip")
        self.assertNotIn("content-encoding", plain.headers)
        self.assertEqual([entry["name"] for entry in plain.body], [entry["name"] for entry in compressed.body])
        self.assertLess(int(compressed.headers["content-length"]), int(plain.headers["content-length"]) / 2)

    def test_json_in_a_json_text_is_told_apart(self) -> None:
        body = json.dumps(json.dumps({"durable": True})).encode()
        answer = self.send("PUT", f"queues/{self.vhost}/q", body=body)
        reason = "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?"
        self.assertEqual((answer.status, answer.body["reason"]), (400, reason))

    def test_logins_are_counted_by_source(self) -> None:
        node = self.get("overview?columns=node")["node"]
        name = self.user("counted")
        self.connect(user=name).close()
        self.delete(f"users/{name}")
        with self.assertRaises(pika.exceptions.ProbableAuthenticationError):
            self.broker.connect(self.vhost, name, "wrong")
        rows = [row for row in self.get(f"auth/attempts/{node}/source") if row["username"] == name]
        expected = {"auth_attempts": 2, "auth_attempts_failed": 1, "auth_attempts_succeeded": 1}
        who = {"remote_address": "127.0.0.1", "username": name, "protocol": "amqp091"}
        self.assertEqual(rows, [{**who, **expected}])
        self.delete(f"auth/attempts/{node}/source")
        self.assertEqual([row for row in self.get(f"auth/attempts/{node}/source") if row["username"] == name], [])


class Limits(Case):
    OPTIONS = ("--set", "management.max_body_size=64KiB")

    def test_a_body_has_a_limit(self) -> None:
        for size, status in ((60_000, 204), (70_000, 400)):
            body = {"description": "d" * size}
            answer = self.call("PUT", f"vhosts/{self.vhost}", body)
            self.assertEqual(answer.status, status, size)
        reason = "Exceeded HTTP request body size limit"
        self.assertEqual(answer.body, {"error": "bad_request", "reason": reason})


class Browsers(Case):
    OPTIONS = (
        "--set",
        "management.cors_allow_origins=https://console.example",
        "--set",
        "management.hsts=max-age=60; includeSubDomains",
    )

    def ask(self, method: str, origin: str, **headers: str):
        login = None if method == "OPTIONS" else ("guest", "guest")
        return self.broker.client.send(method, "/api/overview", login=login, headers={"origin": origin, **headers})

    def test_pages_of_allowed_origins_may_read_answers(self) -> None:
        answer = self.ask("GET", "https://console.example")
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://console.example")
        self.assertEqual(answer.headers["access-control-allow-credentials"], "true")
        self.assertIn("location", answer.headers["access-control-expose-headers"])
        self.assertNotIn("access-control-allow-origin", self.ask("GET", "https://other.example").headers)

    def test_a_preflight_is_answered(self) -> None:
        asks = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization"}
        answer = self.ask("OPTIONS", "https://console.example", **asks)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["access-control-max-age"], "1800")
        self.assertEqual(answer.headers["access-control-allow-methods"], "HEAD, GET, OPTIONS")
        self.assertEqual(answer.headers["access-control-allow-headers"], "authorization")

    def test_browsers_are_told_to_insist_on_https(self) -> None:
        answer = self.ask("GET", "https://other.example")
        self.assertEqual(answer.headers["strict-transport-security"], "max-age=60; includeSubDomains")


class Unconfigured(Case):
    def test_no_page_may_use_the_api_unless_it_is_configured(self) -> None:
        headers = {"origin": "https://console.example", "access-control-request-method": "GET"}
        answer = self.broker.client.send("OPTIONS", "/api/overview", headers=headers)
        self.assertEqual(answer.status, 200)
        self.assertFalse([name for name in answer.headers if name.startswith("access-control")])
        self.assertNotIn("strict-transport-security", answer.headers)


class OtherSites(Case):
    """What a web page of another site can make a browser send changes nothing."""

    OPTIONS = ("--set", "management.cors_allow_origins=https://console.example")

    def send(self, method: str, path: str, headers: dict[str, str], body: object):
        headers = {"content-type": "application/json", **headers}
        body = json.dumps(body).encode()
        return self.broker.client.send(method, f"/api/{path}", login=("guest", "guest"), headers=headers, body=body)

    def test_a_form_of_another_site_makes_no_administrator(self) -> None:
        document = {"users": [{"name": "evil", "password": "evil", "tags": "administrator"}]}
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "https://evil.example", "content-type": "text/plain"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"origin": "https://evil.example", "sec-fetch-site": "same-site"},
        ):
            answer = self.send("POST", "definitions", headers, document)
            self.assertEqual((answer.status, answer.body["error"]), (403, "forbidden"), headers)
            for method, path in (("PUT", "users/evil"), ("DELETE", f"vhosts/{self.vhost}"), ("POST", "warren/stop")):
                answer = self.send(method, path, headers, {"password": "evil", "tags": "administrator"})
                self.assertEqual(answer.status, 403, (method, path, headers))
        self.assertEqual([user["name"] for user in self.get("users")], ["guest"])

    def test_pages_that_may_and_programs_are_not_concerned(self) -> None:
        host = f"{self.broker.client.host}:{self.broker.client.port}"
        for number, headers in enumerate(
            (
                {},
                {"origin": f"http://{host}"},
                {"origin": "https://console.example", "sec-fetch-site": "cross-site"},
                {"sec-fetch-site": "same-origin"},
                {"sec-fetch-site": "none"},
            )
        ):
            self.assertEqual(self.send("PUT", f"queues/{self.vhost}/q{number}", headers, {}).status, 201, headers)
        self.assertEqual(self.send("GET", "overview", {"origin": "https://evil.example"}, {}).status, 200)

    def test_types_of_content_are_refused_where_rabbitmq_refuses_them(self) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        self.assertEqual(self.send("POST", "definitions", form, {}).status, 415)
        self.assertEqual(self.send("POST", f"definitions/{self.vhost}", form, {}).status, 415)
        # What curl sends unless it is told otherwise.
        self.assertEqual(self.send("PUT", f"queues/{self.vhost}/q", form, {}).status, 201)


class SecondWays(Case):
    """What has an address for administrators has no other one for anybody else."""

    def test_policies_are_not_set_as_parameters(self) -> None:
        policy = {"value": {"pattern": "^q", "definition": {"max-length": 1}}}
        path = f"parameters/policy/{self.vhost}/p"
        self.refused("PUT", path, policy, 400, "policies may not be set using this method")
        self.refused("DELETE", path, None, 400, "policies may not be cleared using this method")
        self.assertEqual(self.get("policies"), [])

    def test_a_policymaker_does_not_do_what_administrators_do(self) -> None:
        name = self.user("maker")
        self.put(f"users/{name}", {"password": name, "tags": "policymaker"})
        operator = {"value": {"pattern": "^q", "definition": {"max-length": 1}}}
        limits = {"value": {"max-queues": 1}}
        for path, body in (
            (f"parameters/operator_policy/{self.vhost}/p", operator),
            (f"parameters/vhost-limits/{self.vhost}/limits", limits),
            ("global-parameters/cluster_name", {"value": "other"}),
            ("global-parameters/cluster_tags", {"value": {}}),
            ("global-parameters/internal_definitions_of_x", {"value": "x"}),
        ):
            for method in ("PUT", "DELETE"):
                answer = self.broker.client.send(
                    method,
                    f"/api/{path}",
                    login=(name, name),
                    headers={"content-type": "application/json"},
                    body=json.dumps(body).encode(),
                )
                expected = {"error": "not_authorised", "reason": "Not administrator user"}
                self.assertEqual((answer.status, answer.body), (401, expected), (method, path))
        # An administrator may.
        self.put(f"parameters/operator_policy/{self.vhost}/p", operator)
        self.put(f"parameters/vhost-limits/{self.vhost}/limits", limits)
