"""How a task changes hands without the pool's lock: the protocol, in one place.

Dispatching a plain task, claiming it, running it and ending it with success take no lock. They are safe
because each step is one atomic operation and because every pair of threads that could miss each other
follows one of the numbered handshakes below. Comments elsewhere cite the number.

What is assumed of Python
=========================

These operations are atomic in CPython, with the GIL and with the per-object locks of a free-threaded build:

- reading and writing an attribute (a slot of an object, or an entry of its `__dict__`);
- `deque.append`, `deque.popleft`, `deque.copy`; `list.append`, `list.insert`, `list.pop`, `list.remove` (by
  identity or `==` of objects that define no `__eq__`), slicing a whole list;
- `dict[key] = value`, `dict.pop(key, default)`, `dict.popitem()`, `dict.copy()` with keys that hash and
  compare by identity, or are integers; `next` of `iter(dict)`: a key, or it raises (not of `reversed(dict)`:
  CPython crashes if the table was made anew, smaller, between the two);
- `set.add`, `set.discard` with such members; `next()` of an `itertools.count`.

Nothing is assumed of two operations in a row: another thread may run between any two bytecodes. Writes are
seen by other threads in the order in which they were made. CPython guarantees that with the GIL, and a
free-threaded build for the objects above, whose operations acquire and release.

States, and who may move a task
===============================

- SCHEDULED and RETRYING: the scheduler, lock held: `_due` when the moment has come, `withdraw` when
  cancelled.
- QUEUED: the worker that takes it, by `popleft` from the injector queue (no lock) or by `Scheduler.claim`
  (lock held); or the scheduler, lock held, by `withdraw` or `cancel_plain`: then it is a tombstone, and ends.
- RUNNING: the owner of its attempt, whoever gets the context out of `Slot.running` (H5). If it has two
  attempts under way (`races.py`), the one who owns both, or the one that is left.
- An end is final.

A task has one owner at a time, and only the owner writes `_phase`, `_outcome`, `_record`: its dispatcher
until the task is appended; the queue, that is the scheduler under the lock; the worker that took it;
whoever owns its attempt.

The handshakes
==============

Each excludes one race. Both sides write first and read afterwards, so at least one of them sees the other.

H1  Dispatch and park. The dispatcher appends the task, then reads `parked`. The worker enters itself into
    `parked`, then reads the injector queue. Excluded: a task in the queue beside a worker that sleeps.
    Test: test_task_appended_while_the_worker_looks_for_the_last_time_is_run
H2  Dispatch and close. The dispatcher appends, then reads `guarded` (and takes the task back,
    `look_again`). Whoever closes the way in writes `guarded`, then looks at the queue. Excluded: a task in
    a pool that has ended.
    Test: test_task_appended_just_before_the_pool_closes_is_refused_or_run
H3  Take and withdraw. The worker writes `task._slot`, then reads `task._withdrawn`. `Scheduler.withdraw`
    and `Endings.cancel_plain` write `_withdrawn`, then read `_slot`. Excluded: a task that is cancelled and
    runs. If both see the other, the worker asks `claim`, which waits for the lock and finds that it may have
    the task.
    Test: test_task_cancelled_between_the_taking_and_the_look_is_not_run
H4  Begin and stop. The worker appends the context to `slot.running`, then reads `slot.go`. Whoever keeps a
    slot from beginning (pause, remove, cordon, cool-down) writes `go`, then reads `running`. Excluded: an
    attempt that begins after `pause()` has returned and was not seen to run.
    Test: test_nothing_starts_after_pause_has_returned
H5  End and take over. The worker pops the context from `slot.running`; whoever takes the attempt over
    removes it. One operation on one list decides; the other side gets an IndexError or ValueError.
    The first attempt of a plain task stands in the box as that task until somebody wants its context
    (`attempts_at`, lock held): the context is put in below the task, then the task removed, or the context
    if the worker has popped the task meanwhile. The worker pops what is on top: one entry, in any case.
    Whoever takes an attempt over writes `stuck` before it reaches into the box, and a worker that finds its
    box empty looks there. Excluded: an attempt with two ends.
    Test: test_timeout_strikes_as_the_thread_reaches_for_its_success
    Test: test_attempt_that_ends_while_it_is_given_its_context_ends_once
H6  End and wait. Whoever ends a task writes `_phase`, then reads `_completion`. Whoever waits installs a
    completion, then reads `_phase`. Excluded: a waiter that is never told. A reporter may be told twice, by
    both, and takes no notice of the second time.
    Test: test_who_meets_a_task_just_before_it_ends_is_told
H7  Decide and cancel. Whoever decides on a failure writes `record.deciding = False`, then reads
    `record.cancelled`. Whoever cancels writes `cancelled`, then reads `deciding`. Excluded: a cancellation
    that was confirmed and forgotten.
    Test: test_task_that_is_said_to_be_cancelled_while_its_failure_is_decided_ends_so
H8  Wake one at a time. Whoever wakes sets `searching`, then looks for a slot in `parked`, and calls it. The
    woken slot takes itself out of there, clears `searching`, then reads the injector queue; so it does also
    if it is called twice, or was up already. Excluded: tasks for which everybody relies on a wake-up that
    finds nobody.
    Test: test_dispatcher_that_is_too_late_to_wake_anybody_keeps_no_other_from_it
H9  Arm and sleep. Whoever arms a deadline enters it (an attempt into `running`, a timer under the lock),
    then reads `watchdog.wakes_at`. The watchdog writes `wakes_at = inf`, then looks at what is due.
    Excluded: a deadline that the watchdog sleeps past.
    Test: test_earlier_moment_is_not_missed_behind_a_later_one
H10 Cancel a context. Its owner writes `_reason`, then reads `_token`. Whoever asks for the token makes it,
    then reads `_reason`. Excluded: a token that is never cancelled.
    Test: test_token_that_is_made_as_the_attempt_ends_is_cancelled
H11 Look for idleness. A worker writes `slot.idle = False`, then takes a task, and becomes idle once that
    has ended. Whoever asks whether the pool is idle reads the queue, then the slots. Excluded: a task on
    its way from one to the other that is seen in neither.
    Test: test_pool_does_not_count_as_idle_while_a_task_goes_from_one_hand_to_the_next
H12 Retry and close by force. Whoever puts a task back without the lock appends it, then reads
    `scheduler.over`. `force_close` writes `over`, then cancels what waits. Excluded: a retry left behind in a
    pool that is over.
    Test: test_task_whose_failure_is_just_being_decided_ends_when_the_pool_is_closed_by_force
H13 Deadline and bar. Whoever dispatches with a deadline enters that, appends the task, then reads whether
    any slot is `direct`. Whoever bars a group writes `direct`, then looks through the deadlines, those just
    entered too. Excluded: a task that waits for a deadline which it can't keep.
    Test: test_task_whose_deadline_comes_in_as_the_last_worker_is_barred_is_dead_at_once
H14 Park and want. A worker that helps itself, and finds nothing, becomes idle and enters itself into
    `parked` without the lock, then reads `direct`, `go` and `engine.waiters`. Whoever has something for it
    alone, or bars it, writes `direct` or `go`, then looks through `parked` or takes it out; whoever waits
    for the pool enters a bell into `waiters`, then reads which slots are idle. Excluded: a task filed for a
    worker that sleeps, a barred one that is called, a pool at rest that nobody tells of.
    Test: test_worker_that_parks_without_the_lock_learns_what_is_wanted_of_it
H15 Hedge and succeed. Whoever begins a second attempt of a task enters the race into `under_way`, then looks
    whether the first attempt is still in its box. Who succeeds with the first has emptied the box, then reads
    `under_way`. Excluded: a second attempt of a task that has ended, which nobody stops.
    Test: test_second_attempt_that_begins_as_the_first_leaves_its_box_is_none
H16 Take and wait for room. A dispatcher enters itself into `QueueLimit.waiting`, clears `called`, then counts
    what waits in the queue, whenever it was called anew. A worker takes a task, then reads `waiting` and
    `called`; if nobody was called, it sets `called`, then looks for the first one, and calls it. Excluded: a
    dispatcher that sleeps while there is room.
    Test: test_dispatcher_that_begins_to_wait_as_a_place_comes_free_has_it
H17 Tell and come later. Whoever tells of a task first puts None in the first place of its queue, then looks
    whether anything has come in behind. Whoever has something to tell of the same task meanwhile appends it,
    then looks at the first place. Excluded: an event that nobody tells, or that overtakes another. If both
    see the other, `Observers._changing` decides.
    Test: test_event_that_comes_as_the_one_before_it_is_let_go_of_is_told_once
H18 Call and cease to wait. A worker that was woken, and finds more than the task that it has taken, sets
    `Bell.called`, rings the one who waits for that task, then reads `attended`: if it is set, that one wakes
    another worker. Who waits clears `attended`, then reads `called`, however its waiting ends. Excluded: a
    task that waits beside a worker that sleeps, behind one that takes long.
    Test: test_who_ceases_to_wait_just_before_it_is_called_leaves_nothing_behind
"""
