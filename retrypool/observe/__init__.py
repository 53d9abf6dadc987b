"""Observation of a pool: logs, progress, live tables, metrics, traces. Costs nothing while it is not used.

These look at a pool through its public methods and listen to its events; the pool does not need them.
"""
