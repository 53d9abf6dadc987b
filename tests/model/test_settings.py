"""Options of a task: checked where they are passed, with their value in the message."""

import math
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.settings import TaskSettings
from retrypool.policy.retry import RetryPolicy

LIMITS = ("timeout", "time_limit", "deadline")


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("name", 3, InvalidType),
        ("name", b"x", InvalidType),
        ("priority", 1.5, InvalidType),
        ("priority", "1", InvalidType),
        ("priority", True, InvalidType),
        ("priority", None, InvalidType),
        ("retry", 3, InvalidType),
        ("retry", None, InvalidType),
        ("retry", RetryPolicy, InvalidType),
        *((limit, value, InvalidValue) for limit in LIMITS for value in (0, -1, math.nan, math.inf)),
        *((limit, value, InvalidType) for limit in LIMITS for value in ("5", True, [])),
        ("delay", -1, InvalidValue),
        ("delay", math.nan, InvalidValue),
        ("delay", math.inf, InvalidValue),
        ("delay", None, InvalidType),
        ("delay", "1", InvalidType),
        ("interrupt_on_timeout", 1, InvalidType),
        ("interrupt_on_timeout", None, InvalidType),
        ("copy_context", "yes", InvalidType),
        ("cancel", "now", InvalidType),
        ("options", [("a", 1)], InvalidType),
        ("options", None, InvalidType),
        ("metadata", "x", InvalidType),
    ],
)
def test_bad_value_is_refused_by_name_and_value(option: str, value: Any, kind: type[Exception]) -> None:
    settings = TaskSettings()
    with pytest.raises(kind) as caught:
        settings.having({option: value})
    assert f"{option} is {value!r}" in str(caught.value)
    assert isinstance(caught.value, ValueError if kind is InvalidValue else TypeError)
    assert settings == TaskSettings()


def test_unknown_option_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(InvalidType, match=r"an option is 'prioritty'.*one of: .*priority") as caught:
        TaskSettings().having({"prioritty": 1})
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("derived", ["plain", "span"])
def test_what_is_derived_is_no_option(derived: str) -> None:
    with pytest.raises(InvalidType, match="an option is"):
        TaskSettings().having({derived: True})


def test_seconds_may_be_a_timedelta() -> None:
    length = timedelta(milliseconds=1500)
    settings = TaskSettings().having(dict.fromkeys((*LIMITS, "delay"), length))
    assert [getattr(settings, name) for name in (*LIMITS, "delay")] == [1.5] * 4


@pytest.mark.parametrize("limit", LIMITS)
def test_none_takes_a_limit_off(limit: str) -> None:
    assert getattr(TaskSettings().having({limit: 5}).having({limit: None}), limit) is None


def test_what_is_not_said_comes_from_the_settings_before() -> None:
    before = TaskSettings().having({"priority": 3, "timeout": 5, "options": {"a": 1, "b": 2}})
    after = before.having({"timeout": 7, "options": {"c": 3}})
    assert (after.priority, after.timeout, after.options) == (3, 7.0, {"c": 3})
    assert (before.timeout, before.options) == (5.0, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({}, True),
        ({"name": "x", "timeout": 5, "time_limit": 9, "options": {}, "metadata": {}}, True),
        ({"priority": 1}, True),
        ({"priority": -1}, True),
        ({"worker": 1}, False),
        ({"delay": 1}, False),
        ({"deadline": 1}, False),
        ({"priority": 0, "delay": 0, "deadline": None}, True),
    ],
)
def test_task_is_plain_if_any_worker_may_have_it_now(options: dict[str, Any], plain: bool) -> None:
    assert TaskSettings().having(options).plain is plain


@pytest.mark.parametrize(
    ("options", "running_time", "age", "left"),
    [
        ({"timeout": 5}, 100, 100, (5, "timeout")),
        ({"time_limit": 9}, 7, 100, (2, "time limit")),
        ({"deadline": 9}, 100, 8, (1, "deadline")),
        ({"timeout": 5, "time_limit": 9, "deadline": 20}, 3, 10, (5, "timeout")),
        ({"timeout": 5, "time_limit": 9, "deadline": 20}, 6, 10, (3, "time limit")),
        ({"timeout": 5, "time_limit": 9, "deadline": 20}, 6, 18, (2, "deadline")),
    ],
)
def test_attempt_has_what_the_tightest_limit_leaves(
    options: dict[str, Any], running_time: float, age: float, left: tuple[float, str]
) -> None:
    assert TaskSettings().having(options).time_left(running_time, age) == left


def test_changed_settings_are_what_new_ones_would_be() -> None:
    """Also what follows from others: `having` copies, and does not make anew."""
    changes: list[dict[str, Any]] = [
        {"name": "x", "metadata": {"a": 1}},
        {"require": {"a"}, "timeout": 3},
        {"deadline": 5, "name": "y"},
        {"retry": RetryPolicy(immediate=True)},
        {"keep_data": False},
    ]
    settings = TaskSettings()
    for change in changes:
        settings = settings.having(change)
        given = {field.name: getattr(settings, field.name) for field in fields(TaskSettings) if field.init}
        assert settings == TaskSettings(**given)
