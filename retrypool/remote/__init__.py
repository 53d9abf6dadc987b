"""Workers that live in the processes of a cluster, as actors of an existing engine.

`worker.py` says what such a worker is: created, called, watched, interrupted, lost, stopped. `host.py` is its
other half, in the far process. An engine (`dask.py`, `ray.py`) makes actors of `Host` and carries bytes.
"""
