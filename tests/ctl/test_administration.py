"""Users, permissions, virtual hosts, limits, policies, parameters: what is set can be read again."""

import base64
import re

from support import CtlTest


class Users(CtlTest):
    def setUp(self):
        self.ctl("delete_user", self.user)
        self.addCleanup(self.ctl, "delete_user", self.user)

    def test_the_life_of_a_user(self):
        name = self.user
        done = f'Adding user "{name}" ...\nDone. Don\'t forget .* learn more.\n'
        self.works("add_user", name, "secret", out=done)
        self.fails(70, f'\\AError:\nUser "{name}" already exists\n\\Z', "add_user", name, "secret")
        self.works("authenticate_user", name, "secret", out=f'Authenticating user "{name}" ...\nSuccess\n')
        self.works("change_password", name, stdin="other\n", out=f'Changing password for user "{name}" ...\n')
        error = f"\\AError:\nError: failed to authenticate user \"{name}\"\nuser '{name}' - invalid credentials\n\\Z"
        self.fails(65, error, "authenticate_user", name, "secret")
        self.works("authenticate_user", name, "other")
        self.works("set_user_tags", name, "monitoring", "management", out=f'Setting tags for user "{name}" to \\[monitoring, management\\] ...\n')
        self.assertIn({"user": name, "tags": ["monitoring", "management"]}, self.rows("list_users"))
        self.works("authenticate_user", name, "other")
        self.works("clear_password", name, out=f'Clearing password for user "{name}" ...\n')
        self.fails(65, "invalid credentials", "authenticate_user", name, "other")
        self.works("delete_user", name, out=f'Deleting user "{name}" ...\n')
        self.works("delete_user", name)
        self.assertNotIn(name, [row["user"] for row in self.rows("list_users")])

    def test_users_that_do_not_exist(self):
        for verb, *words in (["change_password", self.user, "x"], ["set_user_tags", self.user, "x"]):
            self.fails(67, f'\\AError:\nUser "{self.user}" does not exist\n\\Z', verb, *words)
        self.fails(69, "no_such_user", "clear_password", self.user)
        self.fails(69, "no_such_user", "list_user_permissions", self.user)

    def test_hashes(self):
        hashed = self.works("hash_password", "secret", "-q").out.strip()
        self.assertEqual(len(base64.b64decode(hashed)), 36)
        self.assertNotEqual(hashed, self.works("hash_password", "-q", stdin="secret\n").out.strip(), "salted")
        self.works("add_user", self.user, hashed, "--pre-hashed-password")
        self.works("authenticate_user", self.user, "secret")
        self.fails(65, "Could not Base64 decode", "add_user", "ctl-other", "x", "--pre-hashed-password")

    def test_the_list_in_every_format(self):
        self.works("add_user", self.user, "x")
        self.works("list_users", out=f"Listing users ...\nuser\ttags\n.*{self.user}\t\\[\\]\n.*guest\t\\[administrator\\]\n.*")
        self.works("list_users", "-q", out="user\ttags\n.*")
        self.works("list_users", "-s", out=f"{self.user}\t\\[\\]\n.*guest.*")
        self.works("list_users", "--no-table-headers", out=f"Listing users ...\n{self.user}\t.*")
        self.works("list_users", "--formatter", "csv", out='"user","tags"\n.*"guest","\\[administrator\\]"\n.*')
        self.works("list_users", "--formatter", "json", out='\\[\n{"user":".*",.*}\n,{.*}\n\\]\n')
        self.works("list_users", "--formatter", "json_stream", out='{"user":.*}\n{"user":.*}\n')
        self.works("list_users", "--formatter", "erlang", out='Listing users ...\n\\[\\[{user,<<".*')
        table = self.works("list_users", "--formatter", "pretty_table").out
        self.assertIn("\x1b(0x\x1b(B \x1b[1muser\x1b[0m", table)
        self.fails(64, "formatter 'bogus' is not supported", "list_users", "--formatter", "bogus")

    def test_limits(self):
        name = self.user
        self.works("add_user", name, "x")
        limits = '{"max-connections": 5, "max-channels": 6}'
        self.works("set_user_limits", name, limits, out=re.escape(f'Setting user limits to "{limits}" for user "{name}" ...\n'))
        self.works("list_user_limits", "--user", name, "-q", out='{"max-(channels|connections)":.,"max-.*":.}\n')
        self.assertIn(name, self.works("list_user_limits", "--global").out)
        self.works("clear_user_limits", name, "max-channels", out=f'Clearing "max-channels" limit for user "{name}" ...\n')
        self.works("list_user_limits", "--user", name, "-q", out='{"max-connections":5}\n')
        self.works("clear_user_limits", name, "all", out=f'Clearing all limits for user "{name}" ...\n')
        self.works("list_user_limits", "--user", name, "-q", out="{}\n")
        self.fails(69, "Could not parse JSON document", "set_user_limits", name, "{bogus")
        self.fails(69, "bogus", "set_user_limits", name, '{"bogus": 5}')
        self.fails(69, "no_such_user", "set_user_limits", "ctl-nobody", "{}")


class VirtualHosts(CtlTest):
    def setUp(self):
        self.ctl("disable_vhost_deletion_protection", self.vhost)
        self.ctl("delete_vhost", self.vhost)
        self.addCleanup(self.ctl, "delete_vhost", self.vhost)

    def row(self, *columns):
        rows = self.rows("list_vhosts", "name", *columns)
        return next(row for row in rows if row["name"] == self.vhost)

    def test_the_life_of_a_vhost(self):
        name = self.vhost
        created = ["--description", "a vhost", "--tags", "a,b", "--default-queue-type", "classic"]
        self.works("add_vhost", name, *created, out=f'Adding vhost "{name}" ...\n')
        self.works("add_vhost", name)
        expected = {"name": name, "description": "a vhost", "tags": ["a", "b"], "default_queue_type": "classic", "tracing": False}
        self.assertEqual(self.row("description", "tags", "default_queue_type", "tracing"), expected)
        self.works("set_vhost_tags", name, "x", "y", out=f'Setting tags for virtual host "{name}" to \\[x, y\\] ...\n')
        self.works("update_vhost_metadata", name, "--description", "new", out=f'Updating metadata of vhost "{name}" ...\n')
        self.assertEqual(self.row("description", "tags"), {"name": name, "description": "new", "tags": ["x", "y"]})
        self.works("trace_on", "-p", name, out=f'Starting tracing for vhost "{name}" ...\nTrace enabled for vhost {name}\n')
        self.assertTrue(self.row("tracing")["tracing"])
        self.works("trace_off", "-p", name, out=f'Stopping tracing for vhost "{name}" ...\nTrace disabled for vhost {name}\n')
        self.assertFalse(self.row("tracing")["tracing"])
        self.works("restart_vhost", "-p", name, out=".*is already running on node.*")
        self.works("reconcile_vhosts")
        self.works("enable_vhost_deletion_protection", name)
        self.fails(65, "it is protected from deletion", "delete_vhost", name)
        self.works("disable_vhost_deletion_protection", name)
        self.works("delete_vhost", name, out=f'Deleting vhost "{name}" ...\n')
        self.fails(65, f"\\AVirtual host '{name}' does not exist\n\\Z", "delete_vhost", name)

    def test_mistakes(self):
        told = "warning: vhost 'ctl-quorum': its default queue type is '{0}', and this version has no {0} queues: " \
               "declarations without a type will be refused; write 'classic'\n"
        self.addCleanup(self.ctl, "delete_vhost", "ctl-quorum")
        for verb, kind in (("add_vhost", "quorum"), ("update_vhost_metadata", "stream")):
            warned = self.ctl(verb, "ctl-quorum", "--default-queue-type", kind, "-q")
            self.assertEqual((warned.code, warned.err), (0, told.format(kind)), warned)
        self.works("update_vhost_metadata", "ctl-quorum", "--default-queue-type", "classic")
        self.fails(65, "Default queue type must be one of", "add_vhost", self.vhost, "--default-queue-type", "bogus")
        self.fails(64, "Info key\\(s\\) bogus are not supported", "list_vhosts", "bogus")
        self.fails(64, "not enough arguments", "update_vhost_metadata", self.vhost)
        for verb in ("set_vhost_tags", "update_vhost_metadata", "trace_on", "list_permissions", "list_policies", "set_vhost_limits"):
            words = {"set_vhost_tags": [self.vhost, "x"], "update_vhost_metadata": [self.vhost, "--description", "x"],
                     "set_vhost_limits": ["-p", self.vhost, "{}"]}.get(verb, ["-p", self.vhost])
            self.fails(65, f"Virtual host .{self.vhost}. does not exist", verb, *words)

    def test_permissions(self):
        self.works("add_vhost", self.vhost)
        self.works("add_user", self.user, "x")
        self.addCleanup(self.ctl, "delete_user", self.user)
        setting = f'Setting permissions for user "{self.user}" in vhost "{self.vhost}" ...\n'
        self.works("set_permissions", "-p", self.vhost, self.user, "^a", "^b", "^c", out=setting)
        row = {"user": self.user, "configure": "^a", "write": "^b", "read": "^c"}
        self.assertIn(row, self.rows("list_permissions", "-p", self.vhost))
        table = f'Listing permissions for user "{self.user}" ...\nvhost\tconfigure\twrite\tread\n{self.vhost}\t\\^a\t\\^b\t\\^c\n'
        self.works("list_user_permissions", self.user, out=table)
        self.works("set_permissions_globally", self.user, ".*", ".*", "x")
        self.assertGreater(len(self.rows("list_user_permissions", self.user)), 1)
        self.works("clear_permissions", "-p", self.vhost, self.user)
        self.assertNotIn(self.vhost, [row["vhost"] for row in self.rows("list_user_permissions", self.user)])
        self.fails(67, "User ctl-nobody does not exist", "set_permissions", "-p", self.vhost, "ctl-nobody", "", "", "")
        self.fails(69, "Virtual host ctl-none does not exist", "set_permissions", "-p", "ctl-none", self.user, "", "", "")
        self.fails(69, "invalid_regexp|missing", "set_permissions", "-p", self.vhost, self.user, "(", "", "")

    def test_topic_permissions(self):
        self.works("add_vhost", self.vhost)
        self.works("add_user", self.user, "x")
        self.addCleanup(self.ctl, "delete_user", self.user)
        self.works("set_topic_permissions", "-p", self.vhost, self.user, "amq.topic", "^w", "^r")
        row = {"user": self.user, "exchange": "amq.topic", "write": "^w", "read": "^r"}
        self.assertEqual(self.rows("list_topic_permissions", "-p", self.vhost), [row])
        self.works("list_user_topic_permissions", "-q", self.user, out=f"{self.vhost}\tamq.topic\t\\^w\t\\^r\n")
        self.works("clear_topic_permissions", "-p", self.vhost, self.user, "amq.topic")
        self.works("clear_topic_permissions", "-p", self.vhost, self.user)
        self.assertEqual(self.rows("list_topic_permissions", "-p", self.vhost), [])
        self.fails(69, "Exchange ctl-none does not exist", "set_topic_permissions", "-p", self.vhost, self.user, "ctl-none", "", "")

    def test_limits(self):
        name = self.vhost
        self.works("add_vhost", name)
        self.works("set_vhost_limits", "-p", name, '{"max-connections": 5, "max-queues": 6}')
        self.assertEqual(self.works("list_vhost_limits", "-p", name, "-q").json(), {"max-connections": 5, "max-queues": 6})
        self.works("set_vhost_limits", "-p", name, '{"max-connections": 7}')
        self.assertEqual(self.works("list_vhost_limits", "-p", name, "-q").json(), {"max-connections": 7})
        self.fails(69, "bogus", "set_vhost_limits", "-p", name, '{"bogus": 1}')
        self.works("list_vhost_limits", "--global", "-q", out=f'vhost\tlimits\n.*{name}\t{{"max-connections":7}}\n.*')
        self.works("clear_vhost_limits", "-p", name, out=f'Clearing vhost "{name}" limits ...\n')
        self.works("list_vhost_limits", "-p", name, "-q", out="\n")
        self.fails(69, "Parameter does not exist", "clear_vhost_limits", "-p", name)

    def test_policies(self):
        name = self.vhost
        self.works("add_vhost", name)
        text = re.escape(f'Setting policy "pol" for pattern "^q" to "{{"max-length":10}}" with priority "3" for vhost "{name}" ...\n')
        words = ["pol", "^q", '{"max-length":10}', "--priority", "3", "--apply-to", "queues"]
        self.works("set_policy", "-p", name, *words, out=text)
        row = {"vhost": name, "name": "pol", "pattern": "^q", "apply-to": "queues", "definition": '{"max-length":10}', "priority": 3}
        self.assertEqual(self.rows("list_policies", "-p", name), [row])
        self.fails(65, "was not found", "list_policies_that_match", "-p", name, "q1")
        self.works("list_policies_that_match", "-p", name, "amq.topic", "--object-type", "exchange")
        for bad in (["pol", "(", "{}"], ["pol", "q", '{"bogus":1}'], ["pol", "q", '{"max-length":1}', "--apply-to", "bogus"]):
            self.fails(69, "Validation failed", "set_policy", "-p", name, *bad)
        self.fails(69, "Could not parse JSON", "set_policy", "-p", name, "pol", "q", "{bad")
        self.fails(64, "Invalid options for this command:\n--priority : x", "set_policy", "-p", name, "pol", "q", "{}", "--priority", "x")
        self.works("clear_policy", "-p", name, "pol", out=f'Clearing policy "pol" on vhost "{name}" ...\n')
        self.fails(69, "Parameter does not exist", "clear_policy", "-p", name, "pol")

    def test_operator_policies(self):
        name = self.vhost
        self.works("add_vhost", name)
        self.works("set_operator_policy", "-p", name, "op", "^q", '{"max-length":10}', "--apply-to", "queues")
        self.assertEqual([row["name"] for row in self.rows("list_operator_policies", "-p", name)], ["op"])
        self.works("clear_operator_policy", "-p", name, "op")
        self.works("list_operator_policies", "-q", "-p", name, out="\n")
        self.fails(69, "Parameter does not exist", "clear_operator_policy", "-p", name, "op")

    def test_parameters(self):
        name = self.vhost
        self.works("add_vhost", name)
        self.fails(69, "component nocomp not found", "set_parameter", "-p", name, "nocomp", "x", "1")
        self.works("set_vhost_limits", "-p", name, '{"max-queues": 9}')
        row = {"component": "vhost-limits", "name": "limits", "value": '{"max-queues":9}'}
        self.assertEqual(self.rows("list_parameters", "-p", name), [row])
        self.works("clear_parameter", "-p", name, "vhost-limits", "limits")
        self.fails(69, "Parameter does not exist", "clear_parameter", "-p", name, "vhost-limits", "limits")

    def test_global_parameters(self):
        self.addCleanup(self.ctl, "clear_global_parameter", "ctl-test")
        self.works("set_global_parameter", "ctl-test", '{"a":1}', out='Setting global runtime parameter "ctl-test" to "{"a":1}" ...\n')
        self.assertIn({"name": "ctl-test", "value": '{"a":1}'}, self.rows("list_global_parameters"))
        self.works("clear_global_parameter", "ctl-test", out='Clearing global runtime parameter "ctl-test" ...\n')
        self.fails(69, "Parameter does not exist", "clear_global_parameter", "ctl-test")
