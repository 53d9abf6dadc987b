"""Workers that live in the processes of a cluster, as actors of an existing engine.

`worker.py` says what such a worker is: created, called, watched, interrupted, lost, stopped. `host.py` is
its other half, in the far process. `engine.py` says what both need of an engine: it makes a `Host` in a
process and carries bytes. `dask.py` and `ray.py` are engines; `specs.py` is the door.
"""
