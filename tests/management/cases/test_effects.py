"""What is written over HTTP takes effect on what is there: connections, queues, messages and channels."""

import pika
from warren import EVERYTHING, Case


class Policies(Case):
    def policy(self, definition: dict, kind: str = "policies", name: str = "p", **fields: object) -> None:
        self.put(f"{kind}/{self.vhost}/{name}", {"pattern": "^q", "definition": definition, **fields})

    def queue_with(self, count: int, **arguments: object) -> None:
        self.put(f"queues/{self.vhost}/q", {"arguments": {key.replace("_", "-"): arguments[key] for key in arguments}})
        for number in range(count):
            self.publish("amq.default", "q", str(number))
        self.wait_until("the messages are in the queue", lambda: self.depth("q") == count)

    def shows(self, **wanted: str) -> None:
        """The queue has these policies, once it says so."""

        def does() -> bool:
            queue = self.get(f"queues/{self.vhost}/q")
            return all(queue.get(key) == value for key, value in wanted.items())

        self.wait_until(f"the queue shows {wanted}", does)

    def test_a_shorter_queue_drops_its_head_at_once(self) -> None:
        self.queue_with(5)
        self.policy({"max-length": 2})
        self.wait_until("the queue is shortened", lambda: self.depth("q") == 2)
        self.assertEqual(self.take("q"), ["3", "4"])
        self.delete(f"policies/{self.vhost}/p")
        for number in range(4):
            self.publish("amq.default", "q", str(number))
        self.assertEqual(len(self.take("q")), 4)

    def test_fewer_bytes_drop_the_head_at_once(self) -> None:
        self.queue_with(5)
        self.policy({"max-length-bytes": 3})
        self.wait_until("the queue is shortened", lambda: self.depth("q") == 3)

    def test_a_ttl_counts_for_new_messages_only(self) -> None:
        self.queue_with(1)
        self.put(f"queues/{self.vhost}/qq")
        self.policy({"message-ttl": 50})
        self.publish("amq.default", "qq", "new")
        self.wait_until("the new message expires", lambda: self.depth("qq") == 0)
        self.assertEqual(self.take("q"), ["0"])

    def test_an_alternate_exchange_takes_what_is_unroutable(self) -> None:
        self.put(f"exchanges/{self.vhost}/in", {"type": "direct"})
        self.put(f"exchanges/{self.vhost}/rest", {"type": "fanout"})
        self.put(f"queues/{self.vhost}/rest")
        self.post(f"bindings/{self.vhost}/e/rest/q/rest", {"routing_key": "", "arguments": {}})
        self.assertFalse(self.publish("in", "nowhere"))
        definition = {"pattern": "^in$", "apply-to": "exchanges", "definition": {"alternate-exchange": "rest"}}
        self.put(f"policies/{self.vhost}/ae", definition)
        self.assertTrue(self.publish("in", "nowhere", "kept"))
        self.assertEqual(self.take("rest"), ["kept"])
        self.delete(f"policies/{self.vhost}/ae")
        self.assertFalse(self.publish("in", "nowhere"))

    def test_an_overflow_refuses_publishes(self) -> None:
        self.queue_with(2)
        self.policy({"max-length": 2, "overflow": "reject-publish"})
        channel = self.connect().channel()
        channel.confirm_delivery()
        with self.assertRaises(pika.exceptions.NackError):
            channel.basic_publish("", "q", b"refused")
        self.policy({"max-length": 2, "overflow": "drop-head"})
        channel.basic_publish("", "q", b"taken")
        self.assertEqual(self.take("q"), ["1", "taken"])

    def test_a_dead_letter_exchange_is_found_by_policy(self) -> None:
        self.put(f"queues/{self.vhost}/dead")
        self.queue_with(1)
        self.policy({"dead-letter-exchange": "", "dead-letter-routing-key": "dead"})
        body = {"count": 1, "ackmode": "reject_requeue_false", "encoding": "auto"}
        self.post(f"queues/{self.vhost}/q/get", body)
        self.wait_until("the message is a dead letter", lambda: self.depth("dead") == 1)

    def test_an_operators_policy_only_makes_it_stricter(self) -> None:
        self.queue_with(0, x_max_length=50)
        self.policy({"max-length": 10, "overflow": "drop-head", "dead-letter-exchange": "amq.fanout"})
        self.policy({"max-length": 20, "expires": 86400000, "overflow": "reject-publish"}, "operator-policies", "o")
        self.shows(policy="p", operator_policy="o")
        shown = self.get(f"queues/{self.vhost}/q")
        merged = {"max-length": 10, "overflow": "reject-publish", "expires": 86400000}
        self.assertEqual(shown["effective_policy_definition"], {**merged, "dead-letter-exchange": "amq.fanout"})
        self.policy({"max-length": 3}, "operator-policies", "o")
        for _ in range(5):
            self.publish("amq.default", "q")
        self.wait_until("the stricter limit holds", lambda: self.depth("q") == 3)

    def test_the_highest_priority_applies(self) -> None:
        self.queue_with(0)
        for name, priority in (("low", -1), ("high", 7), ("middle", 1)):
            self.policy({"max-length": priority + 10}, name=name, priority=priority)
        self.shows(policy="high")
        self.delete(f"policies/{self.vhost}/high")
        self.shows(policy="middle")


class Connections(Case):
    def test_the_connections_of_a_deleted_vhost_are_closed(self) -> None:
        connection, other = self.connect(), self.connect(vhost="/")
        self.delete(f"vhosts/{self.vhost}")
        self.assertEqual(self.reply_to(connection), (320, f"CONNECTION_FORCED - vhost '{self.vhost}' is deleted"))
        other.process_data_events(time_limit=0)
        self.assertTrue(other.is_open)

    def test_the_connections_of_a_deleted_user_are_closed(self) -> None:
        user = self.user("gone")
        connection = self.connect(user)
        self.delete(f"users/{user}")
        self.assertEqual(self.reply_to(connection), (320, f"CONNECTION_FORCED - user '{user}' is deleted"))

    def test_a_connection_is_told_why_it_is_closed(self) -> None:
        user = self.user("closed")
        for reason, text in ((None, "Closed via management plugin"), ("too old", "too old")):
            connection = self.connect(user)
            path = f"/api/connections/username/{user}"
            headers = {} if reason is None else {"X-Reason": reason}
            self.wait_until("the connection is listed", lambda: self.get(f"connections/username/{user}"))
            answer = self.broker.client.send("DELETE", path, login=("guest", "guest"), headers=headers)
            self.assertEqual(answer.status, 204)
            self.assertEqual(self.reply_to(connection), (320, f"CONNECTION_FORCED - {text}"))
            self.wait_until("the connection is gone", lambda: not self.get(f"connections/username/{user}"))


class Logins(Case):
    def test_who_has_no_password_cannot_log_in(self) -> None:
        user = self.user("silent")
        for definition in ({"tags": "management"}, {"tags": "management", "password_hash": ""}):
            with self.subTest(definition):
                self.put(f"users/{user}", definition)
                for password in ("", user):
                    with self.assertRaises(pika.exceptions.ProbableAuthenticationError):
                        self.broker.connect(self.vhost, user, password)
                    answer = self.broker.client.send("GET", "/api/whoami", login=(user, password))
                    self.assertEqual((answer.status, answer.body["error"]), (401, "not_authorized"))

    def test_a_password_that_is_changed_counts_at_once(self) -> None:
        user = self.user("changed")
        self.broker.connect(self.vhost, user, user).close()
        self.put(f"users/{user}", {"tags": "", "password": "new"})
        with self.assertRaises(pika.exceptions.ProbableAuthenticationError):
            self.broker.connect(self.vhost, user, user)
        self.broker.connect(self.vhost, user, "new").close()


class Limits(Case):
    def refused_connection(self, text: str, user: str | None = None) -> None:
        with self.assertRaises(pika.exceptions.ProbableAccessDeniedError) as refused:
            self.connect(user)
        self.assertIn(f'(530) "NOT_ALLOWED - {text}"', str(refused.exception))

    def test_a_vhost_has_so_many_connections(self) -> None:
        self.put(f"vhost-limits/{self.vhost}/max-connections", {"value": 1})
        first = self.connect()
        text = f"access to vhost '{self.vhost}' refused for user 'guest': connection limit (1) is reached"
        self.refused_connection(text)
        first.close()
        self.wait_until("the place is free", lambda: not self.get(f"vhosts/{self.vhost}/connections"))
        self.connect().close()
        self.put(f"vhost-limits/{self.vhost}/max-connections", {"value": -1})
        self.connect()
        self.connect()

    def test_a_vhost_has_so_many_queues(self) -> None:
        self.put(f"vhost-limits/{self.vhost}/max-queues", {"value": 1})
        self.put(f"queues/{self.vhost}/q")
        text = f"cannot declare queue 'r': queue limit in vhost '{self.vhost}' (1) is reached"
        self.refused("PUT", f"queues/{self.vhost}/r", {}, 400, text)
        channel = self.connect().channel()
        self.refused_channel(406, f"PRECONDITION_FAILED - {text}", lambda: channel.queue_declare("r", durable=True))
        self.put(f"queues/{self.vhost}/q")

    def test_a_user_has_so_many_connections(self) -> None:
        user = self.user("limited")
        self.put(f"user-limits/{user}/max-connections", {"value": 1})
        self.connect(user)
        self.refused_connection(f"connection refused for user '{user}': user connection limit (1) is reached", user)
        self.delete(f"user-limits/{user}/max-connections")
        self.connect(user)

    def test_a_user_has_so_many_channels(self) -> None:
        user = self.user("limited")
        self.put(f"user-limits/{user}/max-channels", {"value": 1})
        connection = self.connect(user)
        connection.channel()
        with self.assertRaises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.channel()
        text = f"number of channels opened for user '{user}' has reached the maximum allowed user limit of 1"
        self.assertEqual((closed.exception.reply_code, closed.exception.reply_text), (530, f"NOT_ALLOWED - {text}"))


class Permissions(Case):
    def test_a_change_takes_effect_on_an_open_connection(self) -> None:
        user = self.user("changed")
        connection = self.connect(user)
        connection.channel().queue_declare("q1", durable=True)
        self.put(f"permissions/{self.vhost}/{user}", {**EVERYTHING, "configure": "^other$"})
        text = f"configure access to queue 'q2' in vhost '{self.vhost}' refused for user '{user}'"
        channel = connection.channel()
        self.refused_channel(403, f"ACCESS_REFUSED - {text}", lambda: channel.queue_declare("q2", durable=True))
        self.put(f"permissions/{self.vhost}/{user}", EVERYTHING)
        connection.channel().queue_declare("q2", durable=True)
        self.assertTrue(connection.is_open)

    def test_an_open_channel_is_told_too(self) -> None:
        user = self.user("changed")
        channel = self.connect(user).channel()
        channel.confirm_delivery()
        channel.exchange_declare("x", "fanout", durable=True)
        channel.basic_publish("x", "k", b"1")
        self.put(f"permissions/{self.vhost}/{user}", {**EVERYTHING, "write": "^$"})
        text = f"write access to exchange 'x' in vhost '{self.vhost}' refused for user '{user}'"
        self.refused_channel(403, f"ACCESS_REFUSED - {text}", lambda: channel.basic_publish("x", "k", b"2"))

    def test_a_new_secret_ends_consumers_that_may_not_read_any_more(self) -> None:
        user = self.user("renewed")
        connection = self.connect(user)
        channel = connection.channel()
        ended = []
        channel.add_on_cancel_callback(lambda frame: ended.append(frame.method.consumer_tag))
        for name in ("q1", "q2"):
            channel.queue_declare(name, durable=True)
            channel.basic_consume(name, lambda *_: None, consumer_tag=name)
        connection.update_secret("any", "a password has done its work")
        connection.process_data_events(time_limit=0.5)
        self.assertEqual(ended, [])
        self.put(f"permissions/{self.vhost}/{user}", {**EVERYTHING, "read": "^q1$"})
        connection.update_secret("any", "permissions are looked at again")
        connection.process_data_events(time_limit=1)
        self.assertEqual(ended, ["q2"])
        self.assertEqual(channel.queue_declare("q1", passive=True).method.consumer_count, 1)
        self.assertEqual(channel.queue_declare("q2", passive=True).method.consumer_count, 0)
        self.delete(f"permissions/{self.vhost}/{user}")
        text = f"NOT_ALLOWED - access to vhost '{self.vhost}' refused for user '{user}'"
        with self.assertRaises(pika.exceptions.ConnectionClosedByBroker) as closed:
            connection.update_secret("any", "")
            connection.process_data_events(time_limit=5)
        self.assertEqual((closed.exception.reply_code, closed.exception.reply_text), (530, text))

    def test_topic_permissions_know_the_user_and_the_vhost(self) -> None:
        user = self.user("topical")
        permission = {"exchange": "amq.topic", "write": "^{username}\\.{vhost}$", "read": "^{username}\\..*"}
        self.put(f"topic-permissions/{self.vhost}/{user}", permission)
        connection = self.connect(user)
        channel = connection.channel()
        channel.confirm_delivery()
        allowed = f"{user}.{self.vhost}"
        channel.basic_publish("amq.topic", allowed, b"")
        text = f"write access to topic 'other' in exchange 'amq.topic' in vhost '{self.vhost}' refused for user '{user}'"
        self.refused_channel(403, f"ACCESS_REFUSED - {text}", lambda: channel.basic_publish("amq.topic", "other", b""))
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.queue_bind("q", "amq.topic", f"{user}.#")
        text = text.replace("write access", "read access")
        self.refused_channel(403, f"ACCESS_REFUSED - {text}", lambda: channel.queue_bind("q", "amq.topic", "other"))
        self.delete(f"topic-permissions/{self.vhost}/{user}/amq.topic")
        connection.channel().queue_bind("q", "amq.topic", "other")


class Alarms(Case):
    def blocks(self, path: str, reason: str, sets: dict, clears: dict) -> None:
        """A publish that follows the command finds the alarm in force; the one that shows it to the broker is taken."""
        self.addCleanup(self.call, "PUT", path, clears)
        self.put(f"queues/{self.vhost}/q")
        for _ in range(3):
            connection = self.connect()
            told = []
            connection.add_on_connection_blocked_callback(lambda _, frame: told.append(frame.method.reason))
            channel = connection.channel()
            self.assertEqual(self.call("PUT", path, sets).status, 204)
            for _ in range(2):
                channel.basic_publish("", "q", b"x")
            connection.process_data_events(time_limit=0.3)
            self.assertEqual((told, self.depth("q")), ([reason], 1))
            self.assertEqual(self.call("PUT", path, clears).status, 204)
            channel.basic_publish("", "q", b"x")
            self.wait_until("all are taken", lambda: self.depth("q") == 3)
            self.delete(f"queues/{self.vhost}/q/contents")

    def test_a_disk_limit_is_in_force_at_once(self) -> None:
        path = "warren/disk_free_limit"
        self.blocks(path, "low on disk", {"absolute": 1 << 62}, {"absolute": 1})

    def test_a_memory_watermark_is_in_force_at_once(self) -> None:
        path = "warren/memory_watermark"
        self.blocks(path, "low on memory", {"absolute": 1}, {"relative": 0.6})


class Statistics(Case):
    OPTIONS = ("--set", "management.sample_interval=1s")

    def samples(self) -> list[int]:
        """The lengths of the queue in the last seconds that were not 0."""
        details = self.get(f"queues/{self.vhost}/q?lengths_age=20&lengths_incr=1")["messages_details"]
        return [entry["sample"] for entry in details["samples"] if entry["sample"] > 0]

    def test_the_past_is_removed_on_request(self) -> None:
        self.put(f"queues/{self.vhost}/q")
        self.publish("amq.default", "q")
        self.wait_until("there is a past", lambda: len(self.samples()) >= 4)
        self.delete("reset")
        self.assertLess(len(self.samples()), 4)
        self.assertEqual(self.depth("q"), 1)
