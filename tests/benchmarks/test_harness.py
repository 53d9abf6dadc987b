"""The arithmetic and the order of things, with rows that return what they are told to."""

from benchmarks import report
from benchmarks.harness import (
    Contest,
    Goal,
    Row,
    at_most,
    at_most_later,
    faster,
    percentile,
    run,
    within,
)


def fixed(label: str, *costs: float, **options: object) -> Row:
    """A row that costs these in turn, after its warm-up."""
    rounds = iter((0.0, *costs))
    return Row(label, lambda size: next(rounds), 1, **options)


def contest(*rows: Row, goals: tuple[Goal, ...] = (), reference: str = "retrypool") -> Contest:
    return Contest("a setting", "µs", list(rows), goals, reference)


def test_rows_run_in_turn_and_each_round_starts_one_further_on():
    order: list[tuple[str, int]] = []

    def row(label: str) -> Row:
        def measure(size: int) -> float:
            order.append((label, size))
            return 1.0

        return Row(label, measure, 50)

    run("q", contest(row("a"), row("b")), rounds=3)
    assert order[:2] == [("a", 5), ("b", 5)]
    assert "".join(label for label, size in order[2:] if size == 50) == "abbaab"


def test_a_ratio_is_paired_round_by_round():
    """A slow round hits both, so the ratio stays."""
    ours, theirs = fixed("retrypool", 1, 10, 1), fixed("peer", 7, 70, 7)
    outcome = run("q", contest(ours, theirs, goals=(faster("peer", 7),)), rounds=3)
    assert outcome.ratio("peer") == 7
    (verdict,) = outcome.verdicts
    assert (verdict.low, verdict.figure, verdict.high) == (7, 7, 7)
    assert verdict.met


def test_each_kind_of_goal_has_its_own_figure():
    goals = (faster("peer", 2), within(0.5, "peer"), at_most_later(-1, "peer"), at_most(3))
    rows = fixed("retrypool", 3), fixed("peer", 4)
    outcome = run("q", contest(*rows, goals=goals), rounds=1)
    assert [verdict.figure for verdict in outcome.verdicts] == [4 / 3, 3 / 4, -1, 3]
    assert [verdict.met for verdict in outcome.verdicts] == [False, False, True, True]


def test_losses_are_goals_missed_and_peers_that_cost_less_but_no_floors():
    rows = (
        fixed("retrypool", 2),
        fixed("cheap", 1),
        fixed("dear", 4),
        fixed("bound", 1, floor=True),
    )
    outcome = run("q", contest(*rows, goals=(faster("dear", 7),)), rounds=1)
    missed, cheaper = outcome.losses()
    assert "goal ≥ 7: MISSED" in missed
    assert cheaper == "q, a setting: cheap costs 0.50 of retrypool"


def test_a_peer_that_is_not_installed_is_skipped_with_a_line_that_says_so():
    absent = fixed("peer", 1, needs="no_such_module")
    outcome = run("q", contest(fixed("retrypool", 1), absent), rounds=1)
    assert "    peer: skipped, no_such_module is not installed" in list(report.show(outcome))


def test_where_retrypool_did_not_run_is_a_loss():
    rows = fixed("peer", 1), fixed("retrypool", 1, needs="builtins:no_such_function")
    (lost,) = run("q", contest(*rows), rounds=1).losses()
    assert lost == "q, a setting: retrypool did not run: builtins has no no_such_function"


def test_a_peer_that_breaks_leaves_the_others_their_figures():
    def broken(size: int) -> float:
        raise OSError("gone")

    outcome = run("q", contest(Row("peer", broken, 1), fixed("retrypool", 1)), rounds=1)
    assert outcome.absent == {"peer": "failed: OSError('gone')"}
    assert outcome.values == {"retrypool": [1]}


def test_percentile_takes_a_value_that_occurred():
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([3.0], 0.99) == 3


def test_a_comparison_tells_apart_what_does_not_overlap(tmp_path):
    def outcome(*costs: float):
        return run("q", contest(fixed("retrypool", *costs)), rounds=len(costs))

    facts = {"python": "3", "revision": "r", "date": "d"}
    saved = tmp_path / "run.json"
    saved.write_text(report.as_json(facts, 2, 1.0, [outcome(4, 5)]))
    lines = list(report.show_comparison(facts, 1.0, *report.load(saved), [outcome(1, 2)]))
    assert lines[-1].endswith("cheaper")
    lines = list(report.show_comparison(facts, 1.0, *report.load(saved), [outcome(5, 6)]))
    assert not lines[-1].endswith(("cheaper", "dearer"))
