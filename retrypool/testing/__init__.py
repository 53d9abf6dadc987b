"""For tests: a clock that moves when told, a pool stepped by hand, and fleets simulated in virtual time."""

from retrypool.testing.clock import FakeClock
from retrypool.testing.manual import ManualAttempt, ManualPool
from retrypool.testing.simulation import SimulatedCall, Simulation, WorkerModel, simulate

__all__ = [
    "FakeClock",
    "ManualAttempt",
    "ManualPool",
    "SimulatedCall",
    "Simulation",
    "WorkerModel",
    "simulate",
]
