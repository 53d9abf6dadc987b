"""Storages: they keep the tasks of a pool beyond the end of its process."""
