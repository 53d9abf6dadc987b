"""A program that dispatches tasks as long as it lives: for tests that kill it. Run as a script.

killed.py JOURNAL RUNS DURABILITY RECORD_STARTS [drain]: writes the name of a task to RUNS when it is run, and
to its output once its dispatch has returned. With `drain` it dispatches nothing, and ends when all is done.
"""

import os
import sys

from retrypool import Context, Pool, SQLiteStorage

WORKERS = 3


class Worker:
    def __init__(self, runs: int) -> None:
        self.runs = runs

    def run(self, ctx: Context, data: str) -> int:
        os.write(self.runs, f"{data} {ctx.idempotency_key}\n".encode())
        return len(data)


def main(journal: str, path: str, durability: str, record_starts: str, *rest: str) -> None:
    runs = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    storage = SQLiteStorage(
        journal,
        durability=durability,  # type: ignore[arg-type]
        record_starts=record_starts == "True",
        max_losses=1000,
    )
    with Pool([Worker(runs) for _ in range(WORKERS)], storage=storage) as pool:
        if rest:
            return
        number = 0
        while True:
            number += 1
            name = f"{os.getpid()}-{number}"
            if number % 5:
                pool.dispatch(name, key=name)
                names = [name]
            else:
                names = [f"{name}-{n}" for n in range(20)]
                pool.dispatch_many(names)
            os.write(1, "".join(f"{name}\n" for name in names).encode())
            if number % 100 == 0:
                pool.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
