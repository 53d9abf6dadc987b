"""What was stored comes back the same, or is refused with the part that is to blame."""

import enum
import math
import pickle
from typing import Any

import pytest

from retrypool.errors import AttemptTimeout, InvalidValue, NotStorable, StoredError
from retrypool.storage.codec import JsonCodec, PickleCodec, codec_for


class Colour(enum.StrEnum):
    RED = "red"


class Strange(Exception):
    """Can be pickled, and does not come back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Textless(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        10**30,
        1.5,
        0.1,
        "",
        "é\ud800\0",
        [],
        {},
        [1, [2, {"a": None}]],
        {"": 1},
        Colour.RED,
    ],
)
def test_json_comes_back_the_same(value: Any) -> None:
    codec = JsonCodec()
    assert codec.decode(codec.encode("data", value)) == value


def loop() -> list[Any]:
    value: list[Any] = []
    value.append([value])
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"user": {"seen": [1, {2}]}}, r"data\['user'\]\['seen'\]\[1\] is \{2\} \(set\).*it is no JSON"),
        ([len], r"data\[0\] is <built-in function len>"),
        ((1, 2), r"data is \(1, 2\) \(tuple\).*use a list"),
        ({"a": [(1,)]}, r"data\['a'\]\[0\] is \(1,\)"),
        ({1: "x"}, r"data is 1 \(int\).*a key must be a string"),
        ([math.nan], r"data\[0\] is nan"),
        (math.inf, "data is inf"),
        (b"x", "data is b'x'"),
        ([10**5000], "it is no JSON"),
        (loop(), "holds itself"),
        (deep(), "nested too deeply"),
    ],
)
def test_what_json_can_not_hold_is_named_by_its_path(value: Any, message: str) -> None:
    with pytest.raises(NotStorable, match=message):
        JsonCodec().encode("data", value)


def test_pickle_holds_more() -> None:
    codec = PickleCodec()
    assert codec.decode(codec.encode("data", {(1, 2): {3}})) == {(1, 2): {3}}
    with pytest.raises(NotStorable, match="can't be pickled"):
        codec.encode("data", lambda: 1)


def test_errors_of_python_and_our_own_come_back_by_json() -> None:
    codec = JsonCodec()
    for error in (OSError(5, "down"), ValueError("x"), AttemptTimeout(2.5, "deadline"), KeyError("k")):
        found = codec.decode_error(codec.encode_error(error))
        assert (type(found), found.args, str(found)) == (type(error), error.args, str(error))


def test_other_errors_are_told_in_words() -> None:
    codec = JsonCodec()
    found = codec.decode_error(codec.encode_error(Strange(1, 2)))
    assert isinstance(found, StoredError)
    assert found.kind.endswith("Strange")
    assert found.text == "1 and 2"
    assert "Strange: 1 and 2" in str(found)
    assert "its text could not be made" in str(codec.decode_error(codec.encode_error(Textless())))
    assert isinstance(codec.decode_error(codec.encode_error(OSError(object()))), StoredError)


def test_errors_by_pickle() -> None:
    codec = PickleCodec()
    assert isinstance(codec.decode_error(codec.encode_error(pickle.PicklingError("x"))), pickle.PicklingError)
    assert isinstance(codec.decode_error(codec.encode_error(Strange(1, 2))), StoredError)
    assert isinstance(codec.decode_error(codec.encode_error(ValueError(lambda: 1))), StoredError)


def test_unknown_codec() -> None:
    with pytest.raises(InvalidValue, match="'json' or 'pickle'"):
        codec_for("xml")
