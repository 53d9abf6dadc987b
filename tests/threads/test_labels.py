"""What is said of a task for people to see, and what its worker finds in `ctx.options`."""

from typing import Any

import pytest

from retrypool import InvalidType, Pool, RetryPolicy


class Worker:
    def run(self, ctx: Any, data: object) -> Any:
        if data == "bad":
            raise ValueError(data)
        return ctx.name, dict(ctx.options)


LABELS: dict[str, Any] = {"name": "n", "options": {"a": 1}, "tags": {"t"}, "metadata": {"b": 2}}


@pytest.mark.parametrize("more", [{}, {"priority": 3}, {"deadline": 60}, {"delay": 0.001}])
@pytest.mark.parametrize("listens", [False, True])
def test_labels_of_a_task_are_its_own(more: Any, listens: bool) -> None:
    """However it comes in."""
    heard: list[Any] = []
    with Pool([Worker()], options={"a": 0}, listeners=[heard.append] if listens else []) as pool:
        told, plain = pool.dispatch(1, **LABELS, **more), pool.dispatch(2, **more)
        assert told.result() == ("n", {"a": 1})
        assert plain.result() == (None, {"a": 0})
    assert (told.name, told.tags, told.metadata) == ("n", {"t"}, {"b": 2})
    assert (plain.name, plain.tags, plain.metadata) == (None, frozenset(), {})
    assert repr(told) == f"<Task {told.id} 'n' succeeded>"


def test_dead_task_keeps_its_labels_and_is_requeued_with_them() -> None:
    with Pool([Worker()], retry=RetryPolicy(attempts=1)) as pool:
        task = pool.dispatch("bad", **LABELS)
        assert isinstance(task.exception(), ValueError)
        (dead,) = pool.dead_tasks()
        assert (dead.name, dead.options, dead.tags, dead.metadata) == ("n", {"a": 1}, {"t"}, {"b": 2})
        again = pool.requeue_dead_task(dead.id)
        assert (again.name, again.options) == ("n", {"a": 1})


@pytest.mark.parametrize("label", list(LABELS))
def test_label_that_makes_no_sense_is_refused(label: str) -> None:
    with Pool([Worker()]) as pool, pytest.raises(InvalidType, match=label):
        pool.dispatch(1, **{label: 3})
