"""What an attempt costs where calls are paced: charged as it begins, corrected when it is known."""

from __future__ import annotations

from retrypool.errors import InvalidType, InvalidValue
from retrypool.model.context import Context
from retrypool.model.slots import Slot
from retrypool.policy.rates import Bucket, Rate, checked_cost
from retrypool.threads.interrupt import shielded
from retrypool.threads.works import Works

__all__ = ["Costs"]


class Costs:
    """Charges the rates of one pool. Called outside the pool's lock."""

    def __init__(self, engine: Works) -> None:
        self._engine = engine

    @shielded
    def settle(self, slot: Slot, ctx: Context, actual: float, rate: Rate | None = None) -> None:
        """Correct what an attempt was taken to cost. See `Context.settle`."""
        engine = self._engine
        record = ctx._task._record
        cost = checked_cost("actual", actual)
        if (bucket := _bucket_for(engine.scheduler.fleet.buckets(slot), rate)) is not None:
            self._pour(slot, ctx, bucket, cost)
            return
        with engine.step:
            taken = ctx._cost if ctx._cost is not None else 1.0 if record is None else record.cost
            ctx._cost = cost
            engine.scheduler.fleet.settle(slot, cost - taken, engine.monotonic())

    @shielded
    def measure(self, slot: Slot, ctx: Context, data: object) -> None:
        """Charge what `data` costs by the rates that look at it. Raises what their functions raise."""
        for bucket in self._engine.scheduler.fleet.buckets(slot):
            own = bucket.rate.cost
            if callable(own):
                self._pour(slot, ctx, bucket, checked_cost("cost", own(data)))

    def _pour(self, slot: Slot, ctx: Context, bucket: Bucket, cost: float) -> None:
        engine, record = self._engine, ctx._task._record
        with engine.step:
            if ctx._taken is None:
                ctx._taken = {}
            before = ctx._taken.get(bucket)
            if before is None:
                before = bucket.charge(1.0 if record is None else record.cost)
            ctx._taken[bucket] = cost
            engine.scheduler.fleet.pour(slot, bucket, cost - before, engine.monotonic())


def _bucket_for(buckets: tuple[Bucket, ...], rate: Rate | None) -> Bucket | None:
    """Return the rate that is settled, or None for all that go by the task's own cost."""
    if rate is None:
        own = [bucket for bucket in buckets if bucket.rate.cost is not None]
        if len(own) > 1:
            expected = f"one of {', '.join(repr(bucket.rate) for bucket in own)}"
            raise InvalidValue("rate", rate, f"{expected}: each has a cost of its own")
        return own[0] if own else None
    if not isinstance(rate, Rate):
        raise InvalidType("rate", rate, "one of the rates of the worker's group or the pool")
    for bucket in buckets:
        if bucket.rate is rate or bucket.rate == rate:
            return bucket
    raise InvalidValue("rate", rate, "one of the rates of the worker's group or the pool")
