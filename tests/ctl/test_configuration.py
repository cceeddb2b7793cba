"""The configuration: what new virtual hosts get from it, and reading it again while the broker runs."""

import json
import pathlib
import re
import signal
import tempfile
import unittest

import support
from support import CtlTest

CONFIGURATION = """
[limits]
vhosts = 3

[defaults]
operator_policies = { devices = { vhost_pattern = "^device", queue_pattern = "^q", expires = "1h", max_length = 5 } }
vhost_limits = [{ pattern = "^device-1$", max_queues = 1 }, { pattern = "^device", max_queues = 7, max_connections = 3 }]

[defaults.users]
device = { vhost_pattern = "^device", password = "its own", tags = ["monitoring"], configure = "^q" }
guest = { password = "not this one", tags = [], read = "^$" }

[log]
level = "info"
"""


class Configured(CtlTest):
    @classmethod
    def setUpClass(cls):
        if support.URI:
            raise unittest.SkipTest("it needs a broker with a configuration of its own")
        folder = tempfile.TemporaryDirectory(prefix="warren-configured-")
        cls.addClassCleanup(folder.cleanup)
        cls.file = pathlib.Path(folder.name) / "broker.toml"
        cls.file.write_text(CONFIGURATION)
        cls.broker = support.Broker("--config", cls.file)
        cls.addClassCleanup(cls.broker.stop)
        cls.broker.start()

    def setUp(self):
        self.file.write_text(CONFIGURATION)
        self.works("reload")
        for vhost in self.rows("list_vhosts", "name"):
            if vhost["name"] != "/":
                self.works("delete_vhost", vhost["name"])

    def change(self, old, new):
        self.file.write_text(self.file.read_text().replace(old, new))

    def test_a_new_vhost_has_what_its_name_gives_it(self):
        self.works("add_vhost", "device-1")
        self.works("add_vhost", "device-2")
        for vhost, limits in (("device-1", {"max-queues": 1}), ("device-2", {"max-queues": 7, "max-connections": 3})):
            self.assertEqual(json.loads(self.works("list_vhost_limits", "-p", vhost, "-q").out), limits)
            [policy] = self.rows("list_operator_policies", "-p", vhost)
            self.assertEqual((policy["name"], policy["pattern"]), ("devices", "^q"))
            definition = policy["definition"]
            definition = json.loads(definition) if isinstance(definition, str) else definition
            self.assertEqual(definition, {"expires": 3_600_000, "max-length": 5})
        self.assertEqual(self.rows("list_operator_policies", "-p", "/"), [])
        refused = re.escape("cannot create vhost 'third': vhost limit of 3 is reached")
        self.fails(69, refused, "add_vhost", "third")
        told = self.works("import_definitions", "-", stdin='{"vhosts": [{"name": "third"}]}').out
        self.assertRegex(told, f"  skipped vhost 'third': {refused}\n")

    def test_a_new_vhost_has_its_users(self):
        guest = {"user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
        self.assertEqual(self.rows("list_permissions", "-p", "/"), [guest], "what the first start gives goes before")
        self.assertNotIn("device", [user["user"] for user in self.rows("list_users")], "there is no vhost for it yet")
        self.works("import_definitions", "-", stdin='{"vhosts": [{"name": "device-1"}]}')
        self.works("authenticate_user", "device", "its own")
        self.works("authenticate_user", "guest", "guest")
        device = {"user": "device", "configure": "^q", "write": ".*", "read": ".*"}
        self.assertEqual(self.rows("list_permissions", "-p", "device-1"), [device, {**guest, "read": "^$"}])
        self.assertEqual(self.rows("list_permissions", "-p", "/"), [guest])
        self.change('"its own"', '"another"')
        self.works("reload", out=".*changed: defaults.users\n")
        self.works("delete_user", "device")
        self.works("add_vhost", "device-2")
        self.works("authenticate_user", "device", "another")
        self.works("delete_user", "device")

    def test_what_can_change_changes_and_the_rest_is_named(self):
        self.works("reload", out="Reading the configuration of node .* again ...\nnothing has changed\n")
        self.change("vhosts = 3", "vhosts = 1")
        self.change('level = "info"', 'level = "debug"\n\n[queues]\nshards = 3\n\n[memory]\nhigh_watermark = "1MiB"')
        result = self.works("reload", "-q").out
        changed = ["limits.vhosts", "memory.high_watermark", "log.level"]
        self.assertEqual(set(result.splitlines()), {f"changed: {key}" for key in changed} | {"needs a restart: queues.shards"})
        self.fails(69, "vhost limit of 1 is reached", "add_vhost", "more")
        self.fails(69, "alarms in effect", "check_local_alarms")
        self.assertEqual(self.works("reload", "-q").out, "needs a restart: queues.shards\n", "it still does")
        values = self.works("environment", "--json").json()
        self.assertIn("debug", str(values["log.level"]))
        self.assertNotIn("3", str(values["queues.shards"]["value"]))

    def test_a_mistake_changes_nothing(self):
        self.change("vhosts = 3", "vhosts = 1\nbogus = 1")
        self.fails(65, "(?s)nothing has changed.*broker.toml:4.*bogus", "reload")
        self.works("add_vhost", "more")

    def test_sighup_does_the_same(self):
        self.change("vhosts = 3", "vhosts = 1")
        self.broker.process.send_signal(signal.SIGHUP)
        refused = lambda: self.ctl("add_vhost", "more").code == 69 or not self.works("delete_vhost", "more")
        self.eventually(refused, "the limit has not changed")
        log = (self.broker.path / "log").read_text()
        self.assertRegex(log, "configuration read again: changed.*limits.vhosts")
