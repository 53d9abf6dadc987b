"""What the API decides, without sockets or time."""

from collections import Counter
from http import HTTPStatus

import pytest

from retrypool.demo.api import FASTEST, QUOTA_PAUSE, SLOWEST, TOKENS, Behaviour, Token

GOOD = "token-a"
PATHS = [f"/items/{n}" for n in range(1, 301)]


def sound_path(behaviour: Behaviour) -> str:
    return next(p for p in PATHS if not behaviour.is_missing(p) and not behaviour.is_broken(p))


@pytest.mark.parametrize("token", [None, "", "token-z", "token-b"])
def test_absent_unknown_and_revoked_tokens_are_refused(token: str | None) -> None:
    assert Behaviour(1).answer(token, "/items/1", now=0.0).status is HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("path", ["/", "/items/", "/items/x", "/items/1/more", "/other/1"])
def test_what_is_not_an_item_is_missing(path: str) -> None:
    assert Behaviour(1).answer(GOOD, path, now=0.0).status is HTTPStatus.NOT_FOUND


def test_quota_is_refused_until_the_pause_is_over() -> None:
    behaviour = Behaviour(1, {"small": Token(quota=2)})
    statuses = [behaviour.answer("small", "/none", now=t).status for t in (0.0, 0.1)]
    assert statuses == [HTTPStatus.NOT_FOUND] * 2

    refused = behaviour.answer("small", "/none", now=5.0)
    assert (refused.status, refused.retry_after) == (HTTPStatus.TOO_MANY_REQUESTS, 1)
    early = behaviour.answer("small", "/none", now=5.0 + QUOTA_PAUSE * 0.9)
    assert (early.status, early.retry_after) == (HTTPStatus.TOO_MANY_REQUESTS, 1)

    again = [behaviour.answer("small", "/none", now=5.0 + QUOTA_PAUSE).status for _ in range(3)]
    assert again == [HTTPStatus.NOT_FOUND, HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS]


def test_retry_after_is_a_whole_number_that_is_never_too_short() -> None:
    behaviour = Behaviour(1, {"small": Token(quota=1)})
    behaviour.answer("small", "/none", now=0.0)
    for now in (1.0, 1.3, 1.99):
        seconds = behaviour.answer("small", "/none", now=now).retry_after
        assert seconds is not None
        assert now + seconds >= 1.0 + QUOTA_PAUSE


def test_missing_and_broken_items_stay_so() -> None:
    behaviour = Behaviour(1)
    missing = next(p for p in PATHS if behaviour.is_missing(p))
    broken = next(p for p in PATHS if behaviour.is_broken(p) and not behaviour.is_missing(p))
    for _ in range(20):
        assert behaviour.answer(GOOD, missing, now=0.0).status is HTTPStatus.NOT_FOUND
        assert behaviour.answer(GOOD, broken, now=0.0).status is HTTPStatus.INTERNAL_SERVER_ERROR


def test_other_items_fail_now_and_then_and_are_served_in_the_end() -> None:
    behaviour = Behaviour(1)
    path = sound_path(behaviour)
    seen = Counter(behaviour.answer(GOOD, path, now=0.0).status for _ in range(1000))
    assert set(seen) == {HTTPStatus.OK, HTTPStatus.INTERNAL_SERVER_ERROR, None}
    assert seen[HTTPStatus.OK] > 850


def test_answers_take_twenty_to_sixty_milliseconds() -> None:
    behaviour = Behaviour(1)
    usual = [token for token in TOKENS if token != "token-f"]
    delays = [behaviour.answer(t, p, now=0.0).delay for t in usual for p in PATHS]
    assert FASTEST == 0.020 <= min(delays) < 0.022
    assert 0.058 < max(delays) <= SLOWEST == 0.060


def test_one_token_is_served_slowly() -> None:
    behaviour = Behaviour(1)
    delays = [behaviour.answer("token-f", path, now=0.0).delay for path in PATHS]
    assert 20 * FASTEST <= min(delays) <= max(delays) <= 20 * SLOWEST


def test_one_seed_gives_every_item_the_same_fate_in_any_order_and_for_any_token() -> None:
    def fates(paths: list[str], token: str) -> dict[str, list[HTTPStatus | None]]:
        behaviour = Behaviour(7)
        return {p: [behaviour.answer(token, p, now=0.0).status for _ in range(3)] for p in paths}

    assert fates(PATHS, "token-a") == fates(PATHS[::-1], "token-e")


def test_another_seed_gives_other_fates() -> None:
    assert [Behaviour(1).is_missing(p) for p in PATHS] != [Behaviour(2).is_missing(p) for p in PATHS]


def test_the_tokens_are_one_revoked_one_with_a_quota_and_some_good_ones() -> None:
    assert sum(token.revoked for token in TOKENS.values()) == 1
    assert sum(bool(token.quota) for token in TOKENS.values()) == 1
    assert sum(token == Token() for token in TOKENS.values()) >= 3
