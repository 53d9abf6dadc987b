"""Traces for OpenTelemetry: a span for each task, with a child for each attempt."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from retrypool.errors import InvalidType, MissingExtra
from retrypool.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    PoolStopped,
    TaskCancelled,
    TaskDead,
    TaskDispatched,
    TaskEvent,
    TaskRetrying,
    TaskSucceeded,
)
from retrypool.model.task import DeadTask, Task
from retrypool.observe.watched import Watched
from retrypool.states import Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context as OTelContext
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["Tracing", "trace"]

_NAMESPACE = "retrypool"


def trace(
    pool: Watched,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Tracing:
    """Make spans and metrics of the tasks of `pool` from now on, until `stop()` of the returned object.

    Each task is a span `task NAME`, a child of the span in which it was dispatched; each attempt is a child
    of that, on the thread of its worker, where `run` finds it as the current one: what `run` calls is traced
    below it, and finds the dispatcher's baggage. Retries are events of the task's span. Providers default
    to the global ones. Costs each task some tens of microseconds, less if its trace is not sampled.
    Needs the extra `retrypool[otel]`: raises `MissingExtra` without.

    Names, units and `error.type` follow OpenTelemetry's semantic conventions.
    """
    if not callable(getattr(pool, "add_listener", None)):
        raise InvalidType("a pool", pool, "a Pool")
    tracing = Tracing(pool, tracer_provider, meter_provider)
    pool.add_listener(tracing)
    return tracing


class Tracing:
    """Spans and metrics of one pool. Made by `trace`; ends with `stop`, or as a context manager."""

    listens_to = (
        TaskDispatched,
        AttemptStarted,
        AttemptEnded,
        TaskRetrying,
        TaskSucceeded,
        TaskDead,
        TaskCancelled,
        PoolStopped,
    )

    def __init__(
        self, pool: Watched, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError:
            raise MissingExtra("otel", "opentelemetry-api", "tracing") from None
        self._context, self._trace = context, trace
        self._pool = ref(pool)
        self._stopped = False
        self._pool_name = pool.name
        self._names: dict[int, str] = {}  # of workers, by id
        self._tracer = trace.get_tracer(_NAMESPACE, tracer_provider=tracer_provider)
        # A task's spans are written by whoever owns the task: its dispatcher, then its workers in turn.
        # Setting and popping items of a dict is atomic.
        self._tasks: dict[Task[Any, Any], _TaskSpan] = {}
        self._here = threading.local()  # the token of the span that was attached in this thread
        self._meter = metrics.get_meter(_NAMESPACE, meter_provider=meter_provider)
        self._durations = self._meter.create_histogram(
            "retrypool.attempt.duration", unit="s", description="Duration of attempts."
        )
        self._observe_counts(metrics)

    # -- events ----------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Receive `event`."""
        match event:
            case TaskDispatched(task=task):
                self._begin_task(task, self._context.get_current(), event.at)
            case AttemptStarted():
                self._begin_attempt(event)
            case AttemptEnded():
                self._end_attempt(event)
            case TaskRetrying(task=task):
                if (entry := self._tasks.get(task)) is not None:
                    attributes: dict[str, float | str] = {
                        "retrypool.retry.delay": event.delay,
                        "error.type": _type_name(event.error),
                    }
                    entry.span.add_event("retry", attributes, timestamp=_nanoseconds(event.at, task))
            case TaskEvent():
                self._end_task(event)
            case PoolStopped():
                self._end_all()

    def _begin_task(self, task: Task[Any, Any], parent: OTelContext | None, at: float) -> _TaskSpan:
        attributes: dict[str, str | int] = {"retrypool.pool": self._pool_name, "retrypool.task.id": task.id}
        if task.name is not None:
            attributes["retrypool.task.name"] = task.name
        span = self._tracer.start_span(
            f"task {task.name or self._pool_name}",
            context=parent,
            attributes=attributes,
            start_time=_nanoseconds(at, task),
        )
        entry = _TaskSpan(span, self._trace.set_span_in_context(span, parent))
        self._tasks[task] = entry
        return entry

    def _begin_attempt(self, event: AttemptStarted) -> None:
        """Start a span for an attempt, and make it the current one of this thread, which is its worker's."""
        task = event.task
        entry = self._tasks.get(task)
        if entry is None:  # it was dispatched before anybody traced it
            entry = self._begin_task(task, self._context.Context(), event.at)
        span = self._tracer.start_span(
            f"attempt {task.name or self._pool_name}",
            context=entry.context,
            attributes={
                "retrypool.pool": self._pool_name,
                "retrypool.task.id": task.id,
                "retrypool.attempt.number": event.number,
                "retrypool.worker.id": event.worker_id,
                "retrypool.worker.name": self._name_of(event.worker_id),
                "retrypool.group": event.group,
                "thread.id": threading.get_native_id(),
                "thread.name": threading.current_thread().name,
            },
            start_time=_nanoseconds(event.at, task),
        )
        entry.attempts[event.number] = span
        current = self._trace.set_span_in_context(span, entry.context)
        self._detach()
        self._here.token = self._context.attach(current)
        record = task._record
        if record is not None and record.context is not None:
            # With copy_context, `run` is called in a copy of this one.
            record.context.run(self._context.attach, current)

    def _end_attempt(self, event: AttemptEnded) -> None:
        attempt = event.attempt
        entry = self._tasks.get(event.task)
        span = None if entry is None else entry.attempts.pop(attempt.number, None)
        outcome = {"retrypool.attempt.outcome": attempt.outcome.value}
        error_type: dict[str, str] = {}
        if attempt.error is not None:
            error_type = {"error.type": _type_name(attempt.error)}
        self._durations.record(
            attempt.duration,
            {"retrypool.pool": self._pool_name, "retrypool.group": attempt.group, **outcome, **error_type},
            context=None if entry is None else entry.context,
        )
        if span is None:
            return
        span.set_attributes({**outcome, **error_type})
        if attempt.error is not None:
            span.record_exception(attempt.error, timestamp=_nanoseconds(attempt.ended, event.task))
        if attempt.outcome is not Outcome.SUCCEEDED:
            self._fail(span, attempt.outcome.value, attempt.error)
        span.end(_nanoseconds(attempt.ended, event.task))
        # One that was taken over is told of by another thread. Its own lets go of it before its next.
        if self._trace.get_current_span() is span:
            self._detach()

    def _end_task(self, event: TaskEvent) -> None:
        entry = self._tasks.pop(event.task, None)
        if entry is None:
            return
        span = entry.span
        match event:
            case TaskDead(dead=dead):
                self._tell_of_death(span, dead)
            case TaskCancelled(reason=reason):
                span.set_attribute("retrypool.task.state", "cancelled")
                if reason is not None:
                    span.set_attribute("retrypool.task.cancel_reason", reason)
            case _:
                span.set_attribute("retrypool.task.state", "succeeded")
        for attempt in entry.attempts.values():  # what nobody has told the end of
            attempt.end()
        span.end(_nanoseconds(event.at, event.task))

    def _tell_of_death(self, span: Span, dead: DeadTask[Any]) -> None:
        attributes: dict[str, str | int] = {
            "retrypool.task.state": "dead",
            "retrypool.task.dead_reason": dead.reason.value,
            "retrypool.task.attempts": dead.attempts,
        }
        if dead.error is not None:
            attributes["error.type"] = _type_name(dead.error)
        span.set_attributes(attributes)
        self._fail(span, dead.reason.value, dead.error)

    def _fail(self, span: Span, what: str, error: BaseException | None) -> None:
        text = what if error is None else f"{what}: {_type_name(error)}"
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))

    def _detach(self) -> None:
        token = getattr(self._here, "token", None)
        if token is not None:
            self._here.token = None
            self._context.detach(token)

    def _name_of(self, worker_id: int) -> str:
        name = self._names.get(worker_id)
        if name is None:
            pool = self._pool()
            for worker in () if pool is None else pool.workers():
                self._names[worker.id] = worker.name
            name = self._names.setdefault(worker_id, f"worker-{worker_id}")
        return name

    # -- metrics ---------------------------------------------------------------------------------

    def _observe_counts(self, metrics: Any) -> None:
        """Have counts read from the pool whenever metrics are collected."""
        counts = {
            "retrypool.task.count": ("{task}", "Tasks that have not ended.", "updown", self._tasks_now),
            "retrypool.task.ended": ("{task}", "Tasks that have ended.", "counter", self._tasks_ended),
            "retrypool.worker.count": ("{worker}", "Workers by state.", "updown", self._workers_now),
            "retrypool.attempt.retries": ("{attempt}", "Attempts to be followed by another.", "counter",
                                          self._retries),
        }  # fmt: skip
        for name, (unit, text, kind, read) in counts.items():

            def observe(_options: object, read: Any = read) -> Iterator[Any]:
                pool = self._pool()
                if pool is not None and not self._stopped:
                    for value, attributes in read(pool):
                        yield metrics.Observation(value, {"retrypool.pool": self._pool_name, **attributes})

            if kind == "counter":
                self._meter.create_observable_counter(name, [observe], unit=unit, description=text)
            else:
                self._meter.create_observable_up_down_counter(name, [observe], unit=unit, description=text)

    @staticmethod
    def _tasks_now(pool: Watched) -> Iterator[tuple[int, Mapping[str, str]]]:
        stats = pool.stats()
        for state in ("queued", "delayed", "running"):
            yield getattr(stats, state), {"retrypool.task.state": state}

    @staticmethod
    def _tasks_ended(pool: Watched) -> Iterator[tuple[int, Mapping[str, str]]]:
        stats = pool.stats()
        yield stats.succeeded, {"retrypool.task.state": "succeeded"}
        yield stats.died, {"retrypool.task.state": "dead"}
        yield stats.cancelled, {"retrypool.task.state": "cancelled"}

    @staticmethod
    def _retries(pool: Watched) -> Iterator[tuple[int, Mapping[str, str]]]:
        yield pool.stats().retries, {}

    @staticmethod
    def _workers_now(pool: Watched) -> Iterator[tuple[int, Mapping[str, str]]]:
        states: dict[str, int] = {}
        for worker in pool.workers():
            states[worker.state] = states.get(worker.state, 0) + 1
        for state, count in states.items():
            yield count, {"retrypool.worker.state": state}

    # -- its end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Make no more spans, and end those that are open."""
        self._stopped = True
        pool = self._pool()
        if pool is not None:
            pool.remove_listener(self)
        self._end_all()

    def _end_all(self) -> None:
        """End the open spans: those of tasks that will not run, and of some that the pool has refused."""
        while self._tasks:
            try:
                _, entry = self._tasks.popitem()
            except KeyError:
                break
            for span in [*entry.attempts.values(), entry.span]:
                span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _TaskSpan:
    """The span of a task that has not ended, what its attempts are called in, and their spans by number."""

    __slots__ = ("attempts", "context", "span")

    def __init__(self, span: Span, context: OTelContext) -> None:
        self.span = span
        self.context = context
        self.attempts: dict[int, Span] = {}


def _nanoseconds(at: float, task: Task[Any, Any]) -> int:
    """Return a moment on the pool's clock as spans have it."""
    clock = task._owner.clock
    return int((at - clock.monotonic() + clock.time()) * 1e9)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
