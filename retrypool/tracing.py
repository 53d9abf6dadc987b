"""Traces and metrics for OpenTelemetry. Needs the extra `retrypool[otel]`."""

from retrypool.observe.tracing import Tracing, trace

__all__ = ["Tracing", "trace"]
