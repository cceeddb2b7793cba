"""The comparison finds what differs, and nothing else: each recording against itself, whole and damaged."""

import copy
import re
import unittest

import authorisation
import comparison
import expectations
import laboratory
import rules
from client import Answer
from recordings import Recording, recordings, rights

MOST_OBJECTS = 40
# The configuration of listeners.
FREE_OBJECTS = frozenset({"ip", "ip_address", "backlog", "cowboy_opts"})


def answer_of(recording: Recording) -> Answer:
    return Answer(recording.status, dict(recording.headers), copy.deepcopy(recording.body))


def differences(recording: Recording, answer: Answer, ours: bool = False) -> list[str]:
    return comparison.compare(recording, answer, prefix="", ours=ours)


def is_free(found: dict) -> bool:
    """Whether the tables let the object have any other member."""
    return bool(FREE_OBJECTS.intersection(found))


def objects_in(value: object) -> list[dict]:
    """All objects in a JSON value, itself included."""
    if isinstance(value, list):
        return [found for element in value for found in objects_in(element)]
    if isinstance(value, dict):
        return [value, *(found for member in value.values() for found in objects_in(member))]
    return []


class EachRecording(unittest.TestCase):
    def test_is_equal_to_itself(self) -> None:
        for recording in recordings():
            with self.subTest(recording.name):
                self.assertEqual(differences(recording, answer_of(recording)), [])

    def test_differs_from_another_status(self) -> None:
        for recording in recordings():
            answer = answer_of(recording)
            answer.status += 1
            self.assertTrue(differences(recording, answer), recording.name)

    def test_differs_when_a_header_is_missing(self) -> None:
        for recording in recordings():
            for header in recording.headers:
                if rules.left_out(False, recording.name, header):
                    continue
                answer = answer_of(recording)
                del answer.headers[header]
                self.assertTrue(differences(recording, answer), f"{recording.name} {header}")

    def test_differs_when_a_member_of_its_body_is_missing(self) -> None:
        for recording in recordings():
            if isinstance(recording.body, dict) and recording.body and rules.compares_body(recording.name):
                for key in recording.body:
                    answer = answer_of(recording)
                    del answer.body[key]
                    found = differences(recording, answer)
                    self.assertEqual(bool(found), key not in rules.OPTIONAL_KEYS, f"{recording.name} {key}")

    def test_differs_when_a_member_has_another_type(self) -> None:
        for recording in recordings():
            if isinstance(recording.body, dict) and rules.compares_body(recording.name):
                for key, value in recording.body.items():
                    answer = answer_of(recording)
                    answer.body[key] = "" if isinstance(value, (int, float, dict, list)) else 1
                    self.assertTrue(differences(recording, answer), f"{recording.name} {key}")

    def test_differs_when_an_unlisted_member_is_added_to_any_object(self) -> None:
        for recording in recordings():
            if not rules.compares_body(recording.name):
                continue
            answer = answer_of(recording)
            before = differences(recording, answer, ours=True)
            for found in objects_in(answer.body)[:MOST_OBJECTS]:
                found["surprise"] = 1
                if not is_free(found):
                    self.assertNotEqual(differences(recording, answer, ours=True), before, f"{recording.name} {found}")
                del found["surprise"]

    def test_differs_when_the_body_is_of_another_type(self) -> None:
        for recording in recordings():
            if recording.body is not None and rules.compares_body(recording.name):
                answer = answer_of(recording)
                answer.body = None
                self.assertTrue(differences(recording, answer), recording.name)


class Tables(unittest.TestCase):
    """Exceptions that are about nothing would hide what they were not meant for one day."""

    def test_each_exception_is_about_a_recording_and_has_a_reason(self) -> None:
        names = [recording.name for recording in recordings()]
        tables = [(rules.VARIES, 0), (rules.SHAPE_ONLY, 0), (rules.ALLOWED_EXTRA_PLACES, 0), (rules.LEFT_OUT, 1)]
        for table, column in [*tables, (rules.ALLOWED_EXTRA_ELEMENTS, 0), (rules.BETTER_VALUES, 0)]:
            for row in table:
                self.assertTrue(any(re.fullmatch(row[column], name) for name in names), row)
                self.assertTrue(row[-1], row)
        for name in [*expectations.OURS, *expectations.NOT_ON_REFERENCE, *laboratory.MORE, *laboratory.LESS]:
            self.assertIn(name, names)
        requests = [f"{row.method} {row.path}" for row in rights()]
        for row in [*expectations.RIGHTS_OURS, *expectations.REFUSED_BODIES]:
            self.assertTrue(any(re.fullmatch(row[0], request) for request in requests), row)

    def test_allowed_keys_are_recorded_somewhere(self) -> None:
        known = {key for recording in recordings() for found in objects_in(recording.body) for key in found}
        kinds = {comparison.kind_of(recording.path) for recording in recordings()}
        for kind, keys in rules.ALLOWED_EXTRA_KEYS.items():
            self.assertIn(kind, kinds)
            self.assertEqual(set(keys) - known, set(), kind)


class Values(unittest.TestCase):
    def recorded(self, body: object, **fields) -> Recording:
        given = {"name": "x/y", "method": "GET", "path": "/api/x", "user": None, "status": 200, "headers": {}, **fields}
        return Recording(body=body, **given)

    def check(self, wanted: object, found: object, ours: bool = False, **fields) -> list[str]:
        answer = Answer(fields.get("status", 200), {}, found)
        return comparison.compare(self.recorded(wanted, **fields), answer, prefix="", ours=ours)

    def test_numbers_are_one_type_and_measurements_may_differ(self) -> None:
        self.assertEqual(self.check({"rate": 0.0, "messages": 7}, {"rate": 3, "messages": 8.5}), [])
        self.assertTrue(self.check({"messages": 7}, {"messages": "7"}))
        self.assertTrue(self.check({"messages": 7}, {"messages": None}))

    def test_decided_values_are_exact(self) -> None:
        self.assertTrue(self.check({"arguments": {"x-max-length": 5}}, {"arguments": {"x-max-length": 6}}))
        self.assertTrue(self.check({"arguments": {}}, {"arguments": {"x-max-length": 6}}))
        self.assertTrue(self.check({"name": "a"}, {"name": "b"}))
        self.assertTrue(self.check({"durable": True}, {"durable": False}))
        self.assertTrue(self.check({"reason": ["unknown", "sync"]}, {"reason": ["unknown", "x"]}, status=400))

    def test_a_string_may_take_the_place_of_null_but_not_the_other_way_round(self) -> None:
        self.assertEqual(self.check({"policy": None}, {"policy": "p"}), [])
        self.assertTrue(self.check({"policy": "p"}, {"policy": None}))

    def test_an_empty_map_is_a_map_on_our_side(self) -> None:
        self.assertEqual(self.check({"properties": []}, {"properties": {}}, ours=True), [])
        self.assertTrue(self.check({"properties": []}, {"properties": []}, ours=True))
        self.assertEqual(self.check({"properties": []}, {"properties": []}), [])

    def test_elements_are_found_by_name(self) -> None:
        wanted = [{"name": "a", "durable": True}, {"name": "b", "durable": False}]
        self.assertEqual(self.check(wanted, copy.deepcopy(wanted)), [])
        self.assertTrue(self.check(wanted, wanted[:1]))
        self.assertTrue(self.check(wanted, [*wanted, {"name": "c", "durable": False}]))
        self.assertTrue(self.check(wanted, wanted[::-1]))
        self.assertEqual(self.check(wanted[:1], wanted, shortened=True), [])

    def test_messages_are_compared_in_their_order(self) -> None:
        wanted = [{"payload": "a", "routing_key": "q"}, {"payload": "b", "routing_key": "q"}]
        self.assertEqual(self.check(wanted, copy.deepcopy(wanted)), [])
        self.assertTrue(self.check(wanted, wanted[::-1]))
        self.assertTrue(self.check(wanted, [*wanted, wanted[0]]))

    def test_our_better_answers_are_expected(self) -> None:
        fields = {"name": "write/queue-get-amqp-headers"}
        wanted = {"headers": {"decimal": 1.15}}
        self.assertEqual(self.check(wanted, {"headers": {"decimal": 1.5}}, ours=True, **fields), [])
        self.assertTrue(self.check(wanted, {"headers": {"decimal": 1.15}}, ours=True, **fields))


class Rights(unittest.TestCase):
    def test_a_right_is_a_status_a_reason_and_whether_anything_is_seen(self) -> None:
        refused = Answer(401, {}, {"error": "not_authorised", "reason": "Not monitor user"})
        self.assertTrue(authorisation.fits("401 Not monitor user", refused))
        self.assertFalse(authorisation.fits("401 Not administrator user", refused))
        self.assertFalse(authorisation.fits("200", refused))
        self.assertTrue(authorisation.fits("200 [21]", Answer(200, {}, [1])))
        self.assertFalse(authorisation.fits("200 [21]", Answer(200, {}, [])))
        self.assertFalse(authorisation.fits("200 [0]", Answer(200, {}, [1])))
        self.assertFalse(authorisation.fits("401 (no body)", refused))

    def test_each_recorded_right_can_be_read(self) -> None:
        for row in rights():
            for text in row.answers.values():
                self.assertIsNotNone(authorisation.ANSWER.fullmatch(text), text)


if __name__ == "__main__":
    unittest.main()
