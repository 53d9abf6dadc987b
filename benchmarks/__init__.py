"""Benchmarks: one question per file, peers beside us in the same run. See README.md."""

QUESTIONS = (
    "curve",
    "regimes",
    "threads",
    "throughput",
    "retries",
    "timeouts",
    "lateness",
    "io",
    "latency",
    "fleet",
    "scenarios",
    "map",
    "growth",
    "claims",
    "memory",
    "startup",
    "interrupts",
    "journal",
    "remote",
    "sources",
)
"""Every file that asks one, in the order in which they are asked."""
