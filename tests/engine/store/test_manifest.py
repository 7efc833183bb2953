"""run.json read with care: what it does not say never publishes a text, what it says wrongly never
ends a command.
"""

from typing import Any

import pytest

from engine.store.manifest import is_gated, is_scored, section

ODD: list[Any] = [None, [], 7, "gated", {"gated": None}, {"gated": "no"}, {}]


@pytest.mark.parametrize("task", ODD)
def test_a_run_that_does_not_say_that_its_text_is_free_is_gated(task: Any) -> None:
    assert is_gated({"task": task}) and is_gated({})


def test_a_run_that_says_so_is_not_gated() -> None:
    assert not is_gated({"task": {"gated": False}})
    assert is_gated({"task": {"gated": True}})


def test_given_responses_are_known_by_their_fingerprint() -> None:
    assert is_scored({"identity": {"responses": "0f"}})
    assert not any(is_scored({"identity": odd}) for odd in [*ODD, ["responses"], "responses"])


@pytest.mark.parametrize("odd", [None, [], 7, "text"])
def test_a_part_that_is_no_object_is_empty(odd: Any) -> None:
    assert section({"config": odd}, "config") == section({}, "config") == {}
