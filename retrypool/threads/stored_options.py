"""The options of a task, as text: what it says and its pool does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from retrypool.errors import InvalidType, InvalidValue, StorageError
from retrypool.model.settings import OPTIONS, Stored, TaskSettings
from retrypool.policy.retry import RetryPolicy
from retrypool.storage.base import Storage

__all__ = ["StoredOptions"]

_compact = json.JSONEncoder(separators=(",", ":")).encode


def _options(stored: Stored) -> tuple[str, ...]:
    return tuple(name for name, option in OPTIONS.items() if option.stored == stored)


_PLAIN, _SETS, _MAPPINGS = _options("as it is"), _options("as a list"), _options("encoded")
# Options that belong to this process.
_REFUSED = {name: option.refused for name, option in OPTIONS.items() if option.refused}


class StoredOptions:
    """Turns settings to text and back. Raises for what belongs to this process, or has no name."""

    def __init__(self, storage: Storage, defaults: TaskSettings) -> None:
        self._storage = storage
        self._codec = storage.codec
        self._defaults = defaults
        # Replaced by any dispatcher: the text for the settings that came last.
        self._last: tuple[TaskSettings, str | None] = (defaults, None)
        for name, policy in storage.policies.items():
            if not isinstance(policy, RetryPolicy):
                raise InvalidType(f"policies[{name!r}]", policy, "a RetryPolicy")
        self._check(defaults)

    def text_of(self, settings: TaskSettings) -> str | None:
        """Return the text for these settings; None: they are the pool's."""
        known, text = self._last
        if known is not settings:
            self._check(settings)
            text = self._text_of(settings)
            self._last = (settings, text)
        return text

    def without_the_unknown(self, settings: TaskSettings) -> TaskSettings:
        """Return the settings of a task of another pool, the pool's own in place of what can't be stored."""
        named = any(settings.retry == policy for policy in self._storage.policies.values())
        return replace(
            settings,
            retry=settings.retry if named else self._defaults.retry,
            cost=1.0 if callable(settings.cost) else settings.cost,
            copy_context=False,
        )

    def _check(self, settings: TaskSettings) -> None:
        for option, why in _REFUSED.items():
            if getattr(settings, option):
                raise InvalidValue(option, getattr(settings, option), f"left out, with a storage: {why}")
        if callable(settings.cost):
            raise InvalidValue("cost", settings.cost, "a number, with a storage: a function can't be stored")

    def _text_of(self, settings: TaskSettings) -> str | None:
        """Return as JSON what these settings say and the pool's do not."""
        defaults, facts = self._defaults, dict[str, Any]()
        for option in _PLAIN:
            value = getattr(settings, option)
            if value != getattr(defaults, option):
                facts[option] = value
        for option in _SETS:
            names = getattr(settings, option)
            if names != getattr(defaults, option):
                facts[option] = sorted(names, key=str)
        for option in _MAPPINGS:
            mapping = getattr(settings, option)
            if mapping is not getattr(defaults, option) and mapping != getattr(defaults, option):
                facts[option] = self._codec.encode(option, dict(mapping))
        if settings.retry is not defaults.retry and settings.retry != defaults.retry:
            facts["retry"] = self._name_of(settings.retry)
        return _compact(facts) if facts else None

    def _name_of(self, policy: RetryPolicy) -> str:
        for name, named in self._storage.policies.items():
            if policy is named or policy == named:
                return str(name)
        raise InvalidValue(
            "retry",
            policy,
            "the pool's, or one with a name, with a storage: name it with policies={'patient': ...}",
        )

    def settings_from(self, text: str | None) -> TaskSettings:
        """Return the settings that `text_of` has made a text of."""
        if text is None:
            return self._defaults
        facts: dict[str, Any] = json.loads(text)
        for option in _MAPPINGS:
            if option in facts:
                facts[option] = self._codec.decode(facts[option])
        if "retry" in facts:
            name = facts["retry"]
            if name not in self._storage.policies:
                raise StorageError(
                    self._storage.where, f"a task needs the retry policy {name!r}: give it with policies="
                )
            facts["retry"] = self._storage.policies[name]
        return self._defaults.having(facts)
