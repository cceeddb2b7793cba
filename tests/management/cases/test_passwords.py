"""What passwords must be like: auth.password_min_length and auth.password_pattern."""

import base64
import hashlib

from warren import Case, Warren

TOO_SHORT = "minimum required password length is 8"
NO_MATCH = "provided password does not match the validator regular expression"


class Rules(Case):
    OPTIONS = ("--set", "auth.password_min_length=8", "--set", r"auth.password_pattern=\d")

    def setUp(self) -> None:
        self.vhost = "/"

    def user_of(self, password: str) -> dict:
        return {"password": password, "tags": "management"}

    def test_a_password_is_checked_where_it_is_set(self) -> None:
        self.refused("PUT", "users/new", self.user_of("short 1"), 400, TOO_SHORT)
        self.refused("PUT", "users/new", self.user_of("long enough"), 400, NO_MATCH)
        self.assertEqual(self.call("GET", "users/new").status, 404)
        self.put("users/new", self.user_of("long enough 1"))
        self.refused("PUT", "users/new", self.user_of("short 1"), 400, TOO_SHORT)
        answer = self.broker.client.send("GET", "/api/whoami", login=("new", "long enough 1"))
        self.assertEqual(answer.body["name"], "new")

    def test_an_import_is_refused_as_a_whole(self) -> None:
        users = [{"name": name, "password": password, "tags": ""} for name, password in (("a", "12345678"), ("b", "1"))]
        self.refused("POST", "definitions", {"users": users}, 400, TOO_SHORT)
        self.assertEqual(self.call("GET", "users/a").status, 404)

    def test_a_hash_and_a_user_without_a_password_are_taken(self) -> None:
        salt = b"salt"
        hashed = base64.b64encode(salt + hashlib.sha256(salt + b"x").digest()).decode()
        self.put("users/hashed", {"password_hash": hashed, "tags": ""})
        self.put("users/bare", {"tags": ""})
        self.assertEqual(self.get("users/hashed")["password_hash"], hashed)


class Configuration(Case):
    def test_a_pattern_that_is_none_is_told(self) -> None:
        with self.assertRaisesRegex(RuntimeError, r'auth.password_pattern: "\(" is not a regular expression'):
            Warren("--set", "auth.password_pattern=(")
