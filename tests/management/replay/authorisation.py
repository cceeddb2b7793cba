"""The table of rights: which kind of user gets which answer from each endpoint."""

import re

import expectations
from client import Answer, Client
from names import Names
from recordings import Right

USERS = {
    "administrator": "guest",
    "monitoring": "bob",
    "policymaker+management": "carol",
    "management": "dave",
    "no tag": "app",
    "anonymous": None,
}
ANSWER = re.compile(r"(?P<status>\d{3})(?: \[(?P<rows>\d+)\])?(?: (?P<reason>[^\[].*))?")


def check(client: Client, names: Names, row: Right, *, ours: bool) -> list[str]:
    """The differences of one row: status, reason of a refusal, and whether a list shows anything at all."""
    differences = []
    for kind, wanted in row.answers.items():
        answer = ask(client, names, row, USERS[kind])
        accepted = expectations.accepted_instead(f"{row.method} {row.path}", kind) if ours else ()
        fitting = str(answer.status) in accepted if accepted else fits(wanted, answer)
        if not fitting:
            differences.append(f"{kind}: {answer} instead of {' or '.join(accepted) or wanted}")
    return differences


def ask(client: Client, names: Names, row: Right, user: str | None) -> Answer:
    login = None
    if user is not None:
        login = client.administrator if user == "guest" else (names.name(user), f"{user}-secret")
    body = headers = None
    if row.method in ("PUT", "POST"):
        body = expectations.refused_body(f"{row.method} {row.path}").encode()
        headers = {"content-type": "application/json"}
    return client.send(row.method, names.path(row.path), login=login, headers=headers, body=body)


def fits(wanted: str, answer: Answer) -> bool:
    match = ANSWER.fullmatch(wanted)
    if match is None:
        raise ValueError(f"not an answer: {wanted!r}")
    if answer.status != int(match["status"]):
        return False
    if match["rows"] is not None and isinstance(answer.body, list):
        return bool(answer.body) == bool(int(match["rows"]))
    if match["reason"] == "(no body)":
        return answer.body is None
    if match["reason"] is not None:
        return isinstance(answer.body, dict) and answer.body.get("reason") == match["reason"]
    return True
