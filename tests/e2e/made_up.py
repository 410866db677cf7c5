"""What schemathesis, in a process of its own, does with each request that it has made up, before it is sent.

The document allows what only takes long: 256 answers of any length. A request that is to be served is made small.
"""

from typing import Protocol

import schemathesis
from schemathesis import HookContext

LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
MAX_TOKENS = 4
N_CHOICES = 2


class Case(Protocol):
    """What is used of a request."""

    method: str
    path: str
    path_parameters: dict[str, str]
    headers: dict[str, str]
    body: object


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, object]) -> None:
    if case.method == "DELETE" and case.path_parameters:
        # By now it has read the name of the model that all others ask.
        case.path_parameters["name"] += "-gone"
    if isinstance(case.body, dict) and case.path.endswith("/completions"):
        make_small(case.body)
    if has_little_time(case):
        case.headers["x-request-timeout"] = "10"


def make_small(body: dict[str, object]) -> None:
    """Few tokens, few choices, and almost always a model that there is."""
    for name in LIMITS:
        if body.get(name) == -1 or exceeds(body.get(name), MAX_TOKENS):
            body[name] = MAX_TOKENS
    if all(body.get(name) is None for name in LIMITS):
        body["max_tokens"] = MAX_TOKENS
    if exceeds(body.get("n"), N_CHOICES):
        body["n"] = N_CHOICES
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = None


def exceeds(value: object, most: int) -> bool:
    return isinstance(value, int) and value > most


def has_little_time(case: Case) -> bool:
    """Whether the answer would be that the time was too short, which is right, but a 504."""
    try:
        return 0 < float(case.headers["x-request-timeout"]) < 10
    except (KeyError, ValueError):
        return False
