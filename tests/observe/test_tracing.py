"""Spans and metrics as OpenTelemetry's own SDK gets them, and as a collector does over OTLP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context
from opentelemetry import trace as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from retrypool import InvalidType, Pool, RetryPolicy, WorkerSpec, fixed
from retrypool.testing import ManualPool
from retrypool.tracing import trace

ONCE_MORE = RetryPolicy(attempts=2, delay=fixed(0), jitter=None)


class Traced:
    """A provider whose spans a test can look at."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def spans(self) -> dict[str, list[Any]]:
        """Return the ended spans by the first word of their names."""
        found: dict[str, list[Any]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name.split()[0], []).append(span)
        return found


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_task_is_a_span_with_a_child_for_each_attempt(traced: Traced) -> None:
    errors = [OSError("down")]

    def run(data: str) -> int:
        if errors:
            raise errors.pop()
        return len(data)

    pool = ManualPool([WorkerSpec(run), WorkerSpec(run, group="other")], name="api", retry=ONCE_MORE)
    trace(pool, tracer_provider=traced.provider)
    with traced.tracer.start_as_current_span("caller") as caller:
        pool.dispatch("abc", name="page")
    pool.claim(0).run()
    pool.clock.advance(1)
    pool.claim(1).run()
    spans = traced.spans()
    (task,) = spans["task"]
    first, second = spans["attempt"]
    assert task.name == "task page"
    assert task.parent.span_id == caller.get_span_context().span_id
    assert [span.parent.span_id for span in (first, second)] == [task.context.span_id] * 2
    assert first.status.status_code is otel.StatusCode.ERROR
    assert first.attributes["error.type"] == "OSError"
    assert first.attributes["retrypool.attempt.outcome"] == "failed"
    assert [event.name for event in first.events] == ["exception"]
    assert second.attributes["retrypool.attempt.number"] == 2
    assert second.attributes["retrypool.worker.name"] == "worker-1"
    assert second.attributes["retrypool.group"] == "other"
    assert second.status.status_code is otel.StatusCode.UNSET
    assert [event.name for event in task.events] == ["retry"]
    assert task.attributes["retrypool.task.state"] == "succeeded"
    assert task.attributes["retrypool.pool"] == "api"
    # On the wall clock that the pool goes by.
    assert second.start_time - first.start_time == pytest.approx(1e9, rel=1e-3)


@pytest.mark.parametrize("copy_context", [False, True])
def test_context_of_the_dispatcher_is_there_in_run(traced: Traced, copy_context: bool) -> None:
    seen: list[Any] = []

    def run(data: str) -> None:
        seen.append(baggage.get_baggage("tenant"))
        with traced.tracer.start_as_current_span("inner"):
            pass

    with Pool([run], retry=ONCE_MORE, copy_context=copy_context) as pool:
        trace(pool, tracer_provider=traced.provider)
        token = context.attach(baggage.set_baggage("tenant", "acme"))
        with traced.tracer.start_as_current_span("caller") as caller:
            task = pool.dispatch("x")
        context.detach(token)
        task.result(10)
    spans = traced.spans()
    assert seen == ["acme"]
    (inner,), (attempt,) = spans["inner"], spans["attempt"]
    assert inner.parent.span_id == attempt.context.span_id
    assert inner.context.trace_id == caller.get_span_context().trace_id
    assert threading.get_native_id() != attempt.attributes["thread.id"]


def test_nothing_of_an_attempt_stays_in_its_thread(traced: Traced) -> None:
    after: list[Any] = []

    class Worker:
        def run(self, ctx: Any, data: str) -> str:
            if data == "x":
                raise ValueError(data)
            return data

        def on_stop(self) -> None:
            after.append(otel.get_current_span().get_span_context().is_valid)

    with Pool([Worker()], retry=RetryPolicy(attempts=1)) as pool:
        trace(pool, tracer_provider=traced.provider)
        pool.dispatch("a")
        pool.dispatch("x")
    assert after == [False]


def test_attempt_that_is_taken_over_ends_when_it_is_over(traced: Traced) -> None:
    pool = ManualPool([len, len], timeout=5, retry=ONCE_MORE)
    with trace(pool, tracer_provider=traced.provider):
        task = pool.dispatch("abc")
        late = pool.claim(0)
        pool.clock.advance(5)
        pool.claim(1).run()
        late.finish(3)
        assert task.result() == 3
    first, second = traced.spans()["attempt"]
    assert first.attributes["retrypool.attempt.outcome"] == "timed_out"
    assert first.end_time - first.start_time == pytest.approx(5e9, rel=1e-3)
    assert second.attributes["retrypool.attempt.outcome"] == "succeeded"


def test_dead_and_cancelled_tasks_say_so(traced: Traced) -> None:
    pool = ManualPool([int], retry=RetryPolicy(attempts=1))
    trace(pool, tracer_provider=traced.provider)
    pool.dispatch("x")
    pool.dispatch("1").cancel()
    pool.claim().run()
    by_state = {span.attributes["retrypool.task.state"]: span for span in traced.spans()["task"]}
    assert set(by_state) == {"dead", "cancelled"}
    assert by_state["dead"].status.status_code is otel.StatusCode.ERROR
    assert by_state["dead"].attributes["retrypool.task.dead_reason"] == "attempts"
    assert by_state["cancelled"].status.status_code is otel.StatusCode.UNSET


def test_task_that_was_dispatched_before_gets_its_span_with_its_attempt(traced: Traced) -> None:
    pool = ManualPool([len])
    pool.dispatch("abc")
    trace(pool, tracer_provider=traced.provider)
    pool.claim().run()
    spans = traced.spans()
    assert spans["task"][0].parent is None
    assert spans["attempt"][0].parent.span_id == spans["task"][0].context.span_id


def test_stop_ends_what_is_open_and_hears_no_more(traced: Traced) -> None:
    pool = ManualPool([len])
    tracing = trace(pool, tracer_provider=traced.provider)
    pool.dispatch("abc")
    tracing.stop()
    tracing.stop()
    pool.dispatch("abc")
    assert [len(spans) for spans in traced.spans().values()] == [1]
    assert not pool._engine.observers.wants_started


def test_end_of_the_pool_ends_all_spans(traced: Traced) -> None:
    pool = ManualPool([len])
    tracing = trace(pool, tracer_provider=traced.provider)
    pool.dispatch("abc")
    pool.claim()
    pool.dispatch("abc")
    pool.force_close()
    assert {kind: len(spans) for kind, spans in traced.spans().items()} == {"task": 2, "attempt": 1}
    assert tracing._tasks == {}


def test_metrics_are_read_when_they_are_collected() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    pool = ManualPool([int], name="api", retry=RetryPolicy(attempts=1))
    trace(pool, meter_provider=provider)
    pool.dispatch("1")
    pool.dispatch("x")
    pool.dispatch("3")
    attempt = pool.claim()
    pool.clock.advance(0.5)
    attempt.finish(1)
    pool.claim().run()
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }

    def points(name: str, attribute: str) -> dict[Any, Any]:
        return {
            point.attributes[attribute]: getattr(point, "value", None)
            for point in found[name].data.data_points
        }

    assert points("retrypool.task.count", "retrypool.task.state") == {"queued": 1, "delayed": 0, "running": 0}
    assert points("retrypool.task.ended", "retrypool.task.state") == {
        "succeeded": 1,
        "dead": 1,
        "cancelled": 0,
    }
    assert points("retrypool.worker.count", "retrypool.worker.state") == {"active": 1}
    durations = found["retrypool.attempt.duration"]
    assert durations.unit == "s"
    by_outcome = {
        point.attributes["retrypool.attempt.outcome"]: point for point in durations.data.data_points
    }
    assert by_outcome["succeeded"].sum == 0.5
    assert by_outcome["failed"].attributes["error.type"] == "ValueError"
    provider.shutdown()


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(InvalidType, match="a Pool"):
        trace(3)  # type: ignore[arg-type]


# -- over the wire -------------------------------------------------------------------------------


class Collector:
    """Takes in traces over OTLP/HTTP, as a collector does."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )

        self.spans: list[Any] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend((scope.scope.name, span) for span in scope.spans)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    it = Collector()
    yield it
    it.close()


def test_collector_gets_the_whole_trace(collector: Collector) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=collector.address)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Pool([len] * 2, name="wire") as pool, trace(pool, tracer_provider=provider):
        with provider.get_tracer("test").start_as_current_span("caller"):
            assert list(pool.map(["a", "bc"])) == [1, 2]
        pool.wait()
    provider.shutdown()
    by_id = {span.span_id: span for _, span in collector.spans}
    assert sorted(span.name for span in by_id.values()) == [
        "attempt wire",
        "attempt wire",
        "caller",
        "task wire",
        "task wire",
    ]
    assert len({span.trace_id for span in by_id.values()}) == 1
    parents = {span.name: by_id[span.parent_span_id].name for span in by_id.values() if span.parent_span_id}
    assert parents == {"attempt wire": "task wire", "task wire": "caller"}
    assert {scope for scope, _ in collector.spans} == {"retrypool", "test"}
