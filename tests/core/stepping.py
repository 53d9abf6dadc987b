"""Worker threads, moved by hand: one step at a time, the steps of `retrypool.threads.worker_thread`."""

from typing import Any

from hypothesis.stateful import precondition, rule

from retrypool.model.task import Task

from .model import ANY, Desk, Model, pick


class Stepping(Model):
    """Between any two steps of a thread, anything else may happen."""

    def move(self, desk: Desk) -> None:
        scheduler, slot = self.scheduler, desk.slot
        match desk.state:
            case "awake":
                if not scheduler.backlog.injector:
                    desk.state = "asking"
                    return
                task = scheduler.backlog.injector.popleft()
                desk.item = next(i for i in self.items if i.task is task)
                desk.state, desk.since = "holding", self.number()
                if desk.item.place == "queue":
                    desk.item.place = "hand"
                self.crossed |= sum(d.state in ("holding", "seated") for d in self.desks) > 1
            case "holding":
                assert desk.item is not None
                desk.item.task._slot = slot
                desk.state = "seated"
            case "seated":
                item = desk.item
                assert item is not None
                if item.place == "hand":
                    item.place = "queue"
                if item.task._withdrawn or not slot.direct or not scheduler.admits(slot, item.task):
                    self.claim(desk, item.task)
                else:
                    self.claimed(desk, item, since=desk.since)
            case "asking":
                self.claim(desk, None)
            case "settling":
                if scheduler.backlog.injector and scheduler.fleet.unpark(slot):
                    self.wake(desk)
                else:
                    desk.state = "asleep"
            case "asleep":
                assert desk.called
                desk.called = False
                scheduler.fleet.unpark(slot)
                self.wake(desk)

    def wake(self, desk: Desk) -> None:
        desk.slot.idle = self.searching = False
        desk.state = "asking"

    def claim(self, desk: Desk, handed: Task[Any, Any] | None) -> None:
        desk.item = None
        task = self.scheduler.claim(desk.slot, self.now, handed)
        self.learn_of_fresh_starts()
        if task is not None:
            self.claimed(desk, next(i for i in self.items if i.task is task))
            return
        assert self.barred(desk) or not [i for i in self.at("queue") if self.may_take(desk, i)]
        desk.state = "settling"
        if desk.slot.retired:
            self.scheduler.remove(desk.slot)
            self.desks.remove(desk)

    def rest(self, desk: Desk) -> None:
        """Let a thread go on until it runs a task or sleeps."""
        while desk in self.desks and desk.moving:
            self.move(desk)

    def call_one(self) -> None:
        """What a dispatcher does once it has appended; see `Waking.wake_one`."""
        parked = self.scheduler.fleet.parked
        if parked and not self.searching:
            self.searching = True
            next(reversed(parked)).wake()

    @precondition(lambda self: any(desk.moving for desk in self.desks))
    @rule(n=ANY)
    def thread_moves(self, n: int) -> None:
        self.move(pick([desk for desk in self.desks if desk.moving], n))

    @precondition(lambda self: any(desk.moving for desk in self.desks))
    @rule()
    def threads_go_on(self, really: bool = True) -> None:
        """Until all of them run a task or sleep."""
        while really and (moving := [desk for desk in self.desks if desk.moving]):
            self.rest(moving[0])
