"""A rack of phones: one is slow, one hangs for good. Apps go to the phones that suit them."""

import http.client
from urllib.parse import urlsplit

from _server import running

from retrypool import Context, Pool, Recorder, RetryPolicy, WorkerSpec


class Phone:
    """One phone on its own cable."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.cable = http.client.HTTPConnection(address)

    def run(self, ctx: Context, command: str) -> str:
        try:
            self.cable.request("POST", f"/device/{self.name}", command)
            return self.cable.getresponse().read().decode()
        except BaseException:
            self.cable.close()
            raise

    def on_stop(self) -> None:
        self.cable.close()


def main() -> None:
    with running() as site:
        address = urlsplit(site).netloc

        def phone(name: str, *tags: str) -> WorkerSpec[str, str]:
            # From a factory: a phone that hangs can be opened again, on another thread.
            return WorkerSpec(factory=lambda: Phone(name, address), name=name, tags=tags)

        rack = [phone("phone-1", "camera"), phone("phone-old"), phone("phone-hung", "camera")]
        retry = RetryPolicy(attempts=3, delay=0)
        with Pool(rack, timeout=0.5, grace=0.2, retry=retry) as pool, Recorder(pool) as run:
            installs = pool.dispatch_many([f"install app-{n}" for n in range(30)])
            photos = pool.dispatch_many([f"photo {n}" for n in range(5)], require={"camera"}, priority=1)
        assert all(task.exception() is None for task in installs + photos)
        print(f"{len(installs)} installs, {len(photos)} photos")
        print("photos by", *sorted({task.history[-1].group for task in photos}))
        hung = next(task for task in installs + photos if len(task.history) > 1)
        for attempt in hung.history:
            print(f"  {hung.data}: {attempt.outcome} on {attempt.group} after {attempt.duration:.2f} s")
        print(run.report())


if __name__ == "__main__":
    main()
