"""What becomes of a failed task: each rule of `RetryPolicy.decide`, and which of two goes first."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from retrypool.errors import InvalidType, InvalidValue, Throttled, Unrecoverable, WorkerFault
from retrypool.policy.delays import combine, exponential, fixed, linear
from retrypool.policy.failure import Failure, FailureAction
from retrypool.policy.retry import UNLIMITED, Cancel, GiveUp, RetryIn, RetryPolicy
from retrypool.states import DeadReason

NOW = 100.0


def decide(policy: RetryPolicy, **facts: Any) -> object:
    failure = Failure(**{"error": OSError("down"), "attempt": 1, **facts})
    return policy.decide(failure, NOW)


def refuse(error: BaseException) -> bool:
    raise LookupError("retry_if is broken")


# In the order in which they are asked: a name, what makes the rule apply, and what it decides.
RULES: list[tuple[str, dict[str, Any], dict[str, Any], object]] = [
    ("cancelled", {}, {"cancelled": True}, Cancel("cancelled while it ran")),
    ("unrecoverable", {}, {"error": Unrecoverable("no")}, GiveUp(DeadReason.UNRECOVERABLE)),
    ("retry_if", {"retry_if": KeyError}, {}, GiveUp(DeadReason.NOT_RETRYABLE)),
    ("action", {}, {"action": FailureAction.DEAD}, GiveUp(DeadReason.CALLBACK)),
    ("attempts", {"attempts": 3}, {"attempt": 3}, GiveUp(DeadReason.ATTEMPTS)),
    ("time limit", {}, {"time_limit": 9.0, "running_time": 9.0}, GiveUp(DeadReason.TIME_LIMIT)),
    ("deadline", {}, {"deadline": NOW + 2.0}, GiveUp(DeadReason.DEADLINE)),
]


@pytest.mark.parametrize(
    ("policy", "facts", "decision"), [rule[1:] for rule in RULES], ids=[r[0] for r in RULES]
)
def test_rule_decides_alone(policy: dict[str, Any], facts: dict[str, Any], decision: object) -> None:
    assert decide(RetryPolicy(delay=2.0, **policy), **facts) == decision


@pytest.mark.parametrize("place", range(len(RULES)), ids=[rule[0] for rule in RULES])
def test_rule_goes_before_all_that_come_later(place: int) -> None:
    policy: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for _, wanted, known, _ in reversed(RULES[place:]):
        policy |= wanted
        facts |= known
    assert decide(RetryPolicy(delay=2.0, **policy), **facts) == RULES[place][3]


def test_nothing_against_it_means_retry_after_the_delay() -> None:
    facts = {"time_limit": 9.0, "running_time": 8.9, "deadline": NOW + 2.1}
    assert decide(RetryPolicy(attempts=2, delay=2.0), **facts) == RetryIn(2.0)


# -- throttled -----------------------------------------------------------------------------------


def test_throttled_task_is_retried_at_once_and_not_charged() -> None:
    """The delay is the group's: it cools, and others may take the task now."""
    policy = RetryPolicy(attempts=1, delay=9.0, retry_if=KeyError)
    assert decide(policy, error=Throttled(), attempt=7, charged=0) == RetryIn(0.0)


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        ({"cancelled": True}, Cancel("cancelled while it ran")),
        ({"time_limit": 1.0, "running_time": 1.0}, GiveUp(DeadReason.TIME_LIMIT)),
        ({"deadline": NOW}, GiveUp(DeadReason.DEADLINE)),
        ({"action": FailureAction.DEAD}, RetryIn(0.0)),
    ],
)
def test_throttled_task_is_subject_to_time_and_cancellation_alone(
    facts: dict[str, Any], decision: object
) -> None:
    assert decide(RetryPolicy(), error=Throttled(), charged=0, **facts) == decision


# -- retry_if ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_if", "retried"),
    [
        (None, True),
        (OSError, True),
        (KeyError, False),
        ((KeyError, OSError), True),
        ((), False),
        (lambda error: "down" in str(error), True),
        (lambda error: False, False),
        (lambda error: 0, False),
    ],
)
def test_retry_if_is_a_type_a_tuple_or_a_predicate(retry_if: Any, retried: bool) -> None:
    assert isinstance(decide(RetryPolicy(retry_if=retry_if)), RetryIn) is retried


@pytest.mark.parametrize("retry_if", [3, "OSError", (OSError, 3), [OSError]])
def test_retry_if_of_another_kind_is_refused_with_its_value(retry_if: Any) -> None:
    with pytest.raises(InvalidType, match=r"retry_if is .*predicate") as caught:
        RetryPolicy(retry_if=retry_if)
    assert repr(retry_if) in str(caught.value)


def test_predicate_that_raises_kills_the_task_with_its_own_error_chained() -> None:
    error = OSError("down")
    decision = decide(RetryPolicy(retry_if=refuse), error=error)
    assert isinstance(decision, GiveUp)
    assert decision.reason is DeadReason.POLICY_ERROR
    assert isinstance(decision.error, LookupError)
    assert decision.error.__cause__ is error


def test_predicate_that_raises_the_error_again_leaves_its_cause_alone() -> None:
    error, cause = OSError("down"), KeyError("why")
    error.__cause__ = cause

    def raise_again(error: BaseException) -> bool:
        raise error

    assert decide(RetryPolicy(retry_if=raise_again), error=error) == GiveUp(DeadReason.POLICY_ERROR, error)
    assert error.__cause__ is cause


# -- on_failure ----------------------------------------------------------------------------------


def test_action_retry_overrides_attempts_and_time() -> None:
    facts = {"attempt": 9, "time_limit": 1.0, "running_time": 2.0, "deadline": NOW}
    assert decide(RetryPolicy(delay=2.0), action=FailureAction.RETRY, **facts) == RetryIn(2.0)


def test_action_drop_cancels() -> None:
    assert decide(RetryPolicy(), action=FailureAction.DROP) == Cancel("dropped by on_failure")


# -- attempts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempts", "failed", "retried"), [(1, 1, False), (3, 2, True), (3, 3, False)])
def test_attempts_count_entries_into_run(attempts: int, failed: int, retried: bool) -> None:
    assert isinstance(decide(RetryPolicy(attempts=attempts), attempt=failed), RetryIn) is retried


def test_only_charged_attempts_count() -> None:
    policy = RetryPolicy(attempts=3)
    assert isinstance(decide(policy, error=WorkerFault("ill"), attempt=9, charged=2), RetryIn)
    assert decide(policy, attempt=9, charged=3) == GiveUp(DeadReason.ATTEMPTS)


@given(attempt=st.integers(1, 10**12))
def test_unlimited_attempts_never_run_out(attempt: int) -> None:
    assert isinstance(decide(RetryPolicy(attempts=UNLIMITED), attempt=attempt), RetryIn)


@pytest.mark.parametrize(
    ("errors", "retried"),
    [
        ([OSError()], True),
        ([OSError(), OSError()], False),
        ([KeyError(), KeyError(), OSError()], True),
        ([OSError(), KeyError(), ConnectionError()], False),
        ([OSError(), OSError(), KeyError()], True),
    ],
)
def test_attempts_for_counts_the_errors_of_that_type(errors: list[BaseException], retried: bool) -> None:
    """And of types derived from it, whenever they came; but only a failure by it ends the task."""
    policy = RetryPolicy(attempts=UNLIMITED, attempts_for={OSError: 2})
    assert isinstance(decide(policy, error=errors[-1], errors=errors), RetryIn) is retried


def test_attempts_for_more_than_attempts_changes_nothing() -> None:
    policy = RetryPolicy(attempts=2, attempts_for={OSError: 9})
    assert decide(policy, attempt=2) == GiveUp(DeadReason.ATTEMPTS)


# -- delay ---------------------------------------------------------------------------------------


def test_immediate_means_no_delay() -> None:
    assert decide(RetryPolicy(delay=9.0, immediate=True)) == RetryIn(0.0)


@pytest.mark.parametrize(("margin", "retried"), [(1.9, False), (2.0, False), (2.1, True)])
def test_next_start_has_to_lie_before_the_deadline(margin: float, retried: bool) -> None:
    assert isinstance(decide(RetryPolicy(delay=2.0), deadline=NOW + margin), RetryIn) is retried


def test_delay_is_asked_once_and_with_the_failure() -> None:
    asked: list[Failure] = []

    def delay(failure: Failure) -> float:
        asked.append(failure)
        return 1.5

    error = OSError("down")
    assert decide(RetryPolicy(delay=delay), error=error, attempt=2) == RetryIn(1.5)
    assert [(failure.error, failure.attempt) for failure in asked] == [(error, 2)]


def broken_delay(failure: Failure) -> float:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("delay", "kind"),
    [
        (broken_delay, SystemExit),
        (lambda failure: 1 / 0, ZeroDivisionError),
        (lambda failure: None, InvalidType),
        (lambda failure: "2", InvalidType),
        (lambda failure: True, InvalidType),
        (lambda failure: 2j, InvalidType),
        (lambda failure: -1, InvalidValue),
        (lambda failure: -math.inf, InvalidValue),
        (lambda failure: math.nan, InvalidValue),
        (lambda: 1, TypeError),
    ],
)
def test_delay_that_makes_no_sense_kills_the_task_and_says_why(
    delay: Callable[[Failure], Any], kind: type[BaseException]
) -> None:
    error = OSError("down")
    decision = decide(RetryPolicy(delay=delay), error=error)
    assert isinstance(decision, GiveUp)
    assert decision.reason is DeadReason.POLICY_ERROR
    assert isinstance(decision.error, kind)
    assert decision.error.__cause__ is error


@pytest.mark.parametrize(
    "delay",
    [
        math.inf,
        1e308,
        2**10_000,
    ],
    ids=["inf", "1e308", "2**10000"],
)
def test_huge_delay_is_capped(delay: float) -> None:
    assert decide(RetryPolicy(delay=lambda failure: delay, max_delay=30)) == RetryIn(30.0)
    assert decide(RetryPolicy(delay=lambda failure: delay, max_delay=5)) == RetryIn(5.0)


@pytest.mark.parametrize("jitter", ["none", "full", "equal"])
@pytest.mark.parametrize(
    "delay",
    [lambda failure: math.inf, combine(exponential(1), exponential(1)), linear(1e308)],
    ids=["inf", "combine", "linear"],
)
def test_delay_without_a_cap_stays_a_finite_number(delay: Any, jitter: Any) -> None:
    for chance in (0.0, 0.5):
        policy = RetryPolicy(attempts=UNLIMITED, delay=delay, max_delay=None, jitter=jitter)
        decision = decide(policy, attempt=10_000, random=lambda chance=chance: chance)
        assert isinstance(decision, RetryIn)
        assert math.isfinite(decision.delay)


@given(
    attempt=st.integers(1, 10**6),
    chance=st.floats(0, 1, exclude_max=True),
    base=st.floats(0, 1e9),
    cap=st.floats(0, 1e9),
)
@pytest.mark.parametrize(("jitter", "share"), [("none", 1.0), ("full", 0.0), ("equal", 0.5), (None, 0.0)])
def test_jitter_keeps_within_its_bounds(
    jitter: Any, share: float, attempt: int, chance: float, base: float, cap: float
) -> None:
    """None is full jitter here, because the delay is exponential."""
    policy = RetryPolicy(attempts=UNLIMITED, delay=exponential(base), max_delay=cap, jitter=jitter)
    decision = decide(policy, attempt=attempt, random=lambda: chance)
    failure = Failure(error=OSError(), attempt=attempt)
    full = min(exponential(base)(failure), cap)
    assert isinstance(decision, RetryIn)
    assert share * full <= decision.delay <= full


def test_jitter_is_full_for_exponential_delays_and_none_for_others() -> None:
    assert RetryPolicy()._jitter == "full"
    assert RetryPolicy(delay=fixed(2))._jitter == "none"
    assert RetryPolicy(delay=2)._jitter == "none"


def test_jitter_that_was_not_said_follows_the_delay_of_a_changed_copy() -> None:
    assert replace(RetryPolicy(), delay=2) == RetryPolicy(delay=2)


@given(st.data())
def test_decide_never_raises(data: st.DataObject) -> None:
    returned = data.draw(st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans()))
    policy = RetryPolicy(
        attempts=data.draw(st.sampled_from([1, 2, UNLIMITED])),
        delay=data.draw(st.sampled_from([exponential(1e300), lambda failure: returned])),
        max_delay=data.draw(st.sampled_from([None, 0, 30])),
        jitter=data.draw(st.sampled_from([None, "full", "equal", "none"])),
        retry_if=data.draw(st.sampled_from([None, OSError, refuse])),
    )
    decision = decide(
        policy,
        error=data.draw(st.sampled_from([OSError(), KeyError(), Throttled(), Unrecoverable(), SystemExit()])),
        attempt=data.draw(st.integers(1, 10**9)),
        deadline=data.draw(st.none() | st.floats(0, 1e9)),
        time_limit=data.draw(st.none() | st.floats(0, 1e9)),
    )
    assert isinstance(decision, RetryIn | GiveUp | Cancel)


# -- what makes no sense -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"attempts": 0}, InvalidValue),
        ({"attempts": -1}, InvalidValue),
        ({"attempts": 2.5}, InvalidType),
        ({"attempts": math.nan}, InvalidType),
        ({"attempts": True}, InvalidType),
        ({"attempts": "3"}, InvalidType),
        ({"attempts": None}, InvalidType),
        ({"delay": -1}, InvalidValue),
        ({"delay": math.nan}, InvalidValue),
        ({"delay": math.inf}, InvalidValue),
        ({"delay": "1"}, InvalidType),
        ({"delay": None}, InvalidType),
        ({"max_delay": -1}, InvalidValue),
        ({"max_delay": "1"}, InvalidType),
        ({"jitter": "some"}, InvalidValue),
        ({"immediate": 1}, InvalidType),
        ({"attempts_for": [OSError]}, InvalidType),
    ],
)
def test_option_that_makes_no_sense_is_refused_with_its_value(
    options: dict[str, Any], kind: type[BaseException]
) -> None:
    with pytest.raises(kind) as caught:
        RetryPolicy(**options)
    ((name, value),) = options.items()
    assert f"{name} is {value!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("attempts_for", "message"),
    [
        ({"OSError": 2}, "a key of attempts_for is 'OSError'"),
        ({int: 2}, "a key of attempts_for is <class 'int'>"),
        ({OSError: 0}, r"attempts_for\[OSError\] is 0"),
        ({OSError: "2"}, r"attempts_for\[OSError\] is '2'"),
    ],
)
def test_entry_of_attempts_for_that_makes_no_sense_is_refused(attempts_for: Any, message: str) -> None:
    with pytest.raises((InvalidType, InvalidValue), match=message):
        RetryPolicy(attempts_for=attempts_for)
