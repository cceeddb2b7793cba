"""Compares an answer with the recorded one: status, headers, and the body by shape and, where determined, value."""

import re
from dataclasses import dataclass, field, replace

import rules
from client import Answer
from recordings import Recording

EXACT_HEADERS = ("content-type", "cache-control", "content-security-policy", "content-disposition")
# Headers that are sets of words, in any order.
SET_HEADERS = ("allow", "vary")
# HEAD is answered wherever GET is; content is negotiated everywhere.
OURS_BESIDES = {"allow": frozenset({"head"}), "vary": frozenset({"accept", "origin"})}
MOST_DIFFERENCES = 8
HASH = re.compile(r"~[A-Za-z0-9_-]{6}$")


@dataclass
class Comparison:
    """What is known about the request, and the differences found so far."""

    name: str
    kind: str
    shortened: bool
    # What the names of this run begin with, when others use the broker too; otherwise empty.
    prefix: str
    ours: bool
    # Whether values count; otherwise only shapes do.
    values: bool = True
    differences: list[str] = field(default_factory=list)

    def note(self, path: str, text: str) -> None:
        if not rules.left_out(self.ours, self.name, path):
            self.differences.append(f"{path} {text}")


def kind_of(path: str) -> str:
    """The endpoint a path belongs to, for the tables: its words, with `*` for the names in it."""
    segments = path.partition("?")[0].strip("/").split("/")
    segments = segments[1:] if segments[0] == "api" else segments
    words = [segment if number == 0 or segment in rules.WORDS else "*" for number, segment in enumerate(segments)]
    return "/".join(words)


def compare(recording: Recording, answer: Answer, *, prefix: str, ours: bool) -> list[str]:
    """The differences, at most a few. `prefix`: begins the names of this run, where lists hold those of others too;
    `ours`: it is Warren, which answers some things better."""
    state = Comparison(recording.name, kind_of(recording.path), recording.shortened, prefix, ours)
    if answer.status != recording.status:
        return [f"status {answer.status} instead of {recording.status}: {short(answer.body)}"]
    compare_headers(state, recording, answer)
    if rules.compares_body(recording.name):
        compare_value(state, "$", "", recording.body, answer.body, determined=is_error(recording))
    found = state.differences
    if len(found) > MOST_DIFFERENCES:
        found = [*found[:MOST_DIFFERENCES], f"and {len(found) - MOST_DIFFERENCES} more"]
    return found


def is_error(recording: Recording) -> bool:
    return recording.status >= 400 and recording.status != 503


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def compare_headers(state: Comparison, recording: Recording, answer: Answer) -> None:
    for header in EXACT_HEADERS:
        compare_header(state, header, recording.headers.get(header), answer.headers.get(header), lambda text: text)
    for header in SET_HEADERS:
        wanted, found = recording.headers.get(header), answer.headers.get(header)
        if state.ours and wanted is not None and found is not None:
            # What Warren says besides is true wherever RabbitMQ leaves it out.
            wanted = ",".join(words_of(wanted) | (words_of(found) & OURS_BESIDES[header]))
        compare_header(state, header, wanted, found, words_of)
    compare_header(state, "location", recording.headers.get("location"), answer.headers.get("location"), without_hash)
    wanted, found = "www-authenticate" in recording.headers, "www-authenticate" in answer.headers
    if wanted != found:
        state.note("www-authenticate", "is missing" if wanted else f"is there: {answer.headers['www-authenticate']}")


def compare_header(state: Comparison, header: str, wanted: str | None, found: str | None, normalise) -> None:
    if wanted is None and found is None:
        return
    if wanted is None or found is None or normalise(wanted) != normalise(found):
        state.note(header, f"{found!r} instead of {wanted!r}")


def words_of(text: str) -> frozenset:
    return frozenset(word.strip().lower() for word in text.split(","))


def without_hash(text: str) -> str:
    return HASH.sub("~", text)


def type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return {str: "string", list: "array", dict: "object"}[type(value)]


def compare_value(state: Comparison, path: str, key: str, wanted: object, found: object, determined: bool) -> None:
    """`determined`: the value counts in here, not only the shape."""
    better = rules.better_values(state.name, path) if state.ours else None
    if better is not None:
        if not any(type_of(value) == type_of(found) and value == found for value in better):
            state.note(path, f"is {short(found)} instead of one of {short(better)}")
        return
    if wanted == [] and key in rules.MAP_KEYS and state.ours:
        wanted = {}
    kinds = type_of(wanted), type_of(found)
    if kinds[0] != kinds[1]:
        if kinds != ("null", "string"):
            state.note(path, f"is {kinds[1]} {short(found)} instead of {kinds[0]} {short(wanted)}")
    elif kinds[0] == "object":
        compare_object(state, path, wanted, found, determined)
    elif kinds[0] == "array":
        compare_array(state, path, key, wanted, found, determined)
    elif counts(key, path, wanted, determined, state) and normalised(key, wanted) != normalised(key, found):
        state.note(path, f"is {short(found)} instead of {short(wanted)}")


def counts(key: str, path: str, wanted: object, determined: bool, state: Comparison) -> bool:
    """Whether the value, not only its type, has to be the recorded one."""
    if not state.values or rules.varies(state.name, key, path):
        return False
    return determined or not isinstance(wanted, (int, float)) or isinstance(wanted, bool) or key in rules.EXACT_NUMBERS


def normalised(key: str, value: object) -> object:
    if isinstance(value, str):
        value = without_hash(value) if key == "properties_key" else re.sub(r"(?<=len: )\d+", "N", value)
    return value


def compare_object(state: Comparison, path: str, wanted: dict, found: dict, determined: bool) -> None:
    for key, value in wanted.items():
        below = f"{path}.{key}"
        if key not in found:
            if key not in rules.OPTIONAL_KEYS:
                state.note(below, "is missing")
            continue
        compare_value(state, below, key, value, found[key], determined or key in rules.EXACT_SUBTREES)
    allowed = rules.allowed_extra_keys(state.kind)
    for key in found:
        if key not in wanted and (determined or not (key in allowed or key in rules.OPTIONAL_KEYS)):
            if not rules.extra_is_allowed(state.name, path, key):
                state.note(f"{path}.{key}", f"is not in the recording: {short(found[key])}")


def compare_array(state: Comparison, path: str, key: str, wanted: list, found: list, determined: bool) -> None:
    if rules.shape_only(state.name, key, path):
        compare_element_shapes(state, path, key, wanted, found)
    elif determined and not state.shortened:
        if len(wanted) != len(found):
            state.note(path, f"is {short(found)} instead of {short(wanted)}")
        else:
            for index, pair in enumerate(zip(wanted, found)):
                compare_value(state, f"{path}[{index}]", key, *pair, determined)
    elif all(isinstance(element, dict) and identity(element) for element in wanted):
        compare_identified(state, path, key, wanted, found, determined)
    else:
        compare_by_index(state, path, key, wanted, found, determined)


def compare_element_shapes(state: Comparison, path: str, key: str, wanted: list, found: list) -> None:
    """Only what kind of elements there are: each must have the shape of one of the recorded ones."""
    if wanted and not found:
        state.note(path, "is empty")
    for index, element in enumerate(found if wanted else []):
        least: list[str] | None = None
        for pattern in wanted:
            shapes = replace(state, values=False, differences=[])
            compare_value(shapes, f"{path}[{index}]", key, pattern, element, determined=False)
            least = shapes.differences if least is None or len(shapes.differences) < len(least) else least
            if not least:
                break
        state.differences.extend(least or [])


def compare_identified(
    state: Comparison, path: str, key: str, wanted: list, found: list, determined: bool
) -> None:
    """Elements that have a name: each recorded one must be there, in the recorded order, and no other."""
    actual = {identity(element): index for index, element in enumerate(found) if isinstance(element, dict)}
    last = -1
    in_order = not state.shortened and path in ("$", "$.items")
    for element in wanted:
        label = identity(element)
        below = f"{path}[{label}]"
        if label not in actual:
            state.note(below, "is missing")
            continue
        compare_value(state, below, key, element, found[actual[label]], determined)
        if state.prefix in label:
            if actual[label] < last and in_order:
                state.note(below, "is in another place")
            last = max(last, actual[label])
    known = {identity(element) for element in wanted}
    extra = [label for label in actual if label not in known and (not in_order or state.prefix in label)]
    if extra and not state.shortened:
        if not rules.extra_elements_are_allowed(state.name, path):
            state.note(path, f"has elements that are not in the recording: {short(extra)}")


def compare_by_index(state: Comparison, path: str, key: str, wanted: list, found: list, determined: bool) -> None:
    if len(found) < len(wanted) or (len(found) > len(wanted) and not state.shortened):
        state.note(path, f"has {len(found)} elements instead of {len(wanted)}: {short(found)}")
    for index, pair in enumerate(zip(wanted, found)):
        compare_value(state, f"{path}[{index}]", key, *pair, determined)


def identity(element: dict) -> str:
    """What tells the element from the others in its list; empty when nothing does, as for messages."""
    if "payload" in element:
        return ""
    parts = []
    for key in rules.IDENTITY_KEYS:
        value = element.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            parts.append(str(value))
    return "/".join(parts)
