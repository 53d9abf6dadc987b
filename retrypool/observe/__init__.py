"""What tells: logs, progress, live tables, metrics, traces. Costs nothing while nobody looks.

These look at a pool through its public methods and listen to its events; the pool does not need them.
"""
