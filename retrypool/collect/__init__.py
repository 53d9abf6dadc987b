"""What people do after they dispatch: map, groups, drains, results.

These need tasks, and a pool that is passed in; they know neither threads nor workers.
"""
