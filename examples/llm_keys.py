"""Prompts through keys of a language model, each with limits on requests and on tokens; one was revoked.

One rate keeps both limits. It is told in tokens, and a request counts as 15 of them at the least: if 300
tokens and 20 requests are allowed in a second, that keeps whichever limit is the tighter one.
"""

import json
import urllib.error
import urllib.request

from _server import running

from retrypool import Context, Pool, Rate, Recorder, Throttled, WorkerFault, WorkerSpec

LEAST = 15


class Key:
    """Sends prompts with one key."""

    def __init__(self, key: str, site: str) -> None:
        self.key = key
        self.site = site

    def run(self, ctx: Context, prompt: str) -> str:
        request = urllib.request.Request(
            f"{self.site}/complete", prompt.encode(), headers={"Authorization": self.key}
        )
        try:
            with urllib.request.urlopen(request, timeout=ctx.remaining) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                raise WorkerFault(f"{self.key} is not valid") from None
            raise Throttled(
                retry_after=error.headers["Retry-After"]
            ) from None  # another key takes the prompt
        ctx.settle(max(answer["tokens"], LEAST))  # what the model has counted, in place of the estimate
        return str(answer["text"])


def cost(prompt: str) -> float:
    """Return about how many tokens a prompt counts as."""
    return max(len(prompt) / 5, LEAST)


def main() -> None:
    limits = {"key-small": 120, "key-large": 300, "key-revoked": 300}  # tokens per second
    with running() as site:
        rates = {key: Rate(tokens, per=1, burst=LEAST) for key, tokens in limits.items()}
        keys = [WorkerSpec(Key(key, site), name=key, concurrency=2, rate=rates[key]) for key in limits]
        prompts = [f"tell me in one short sentence what the number {n} means" for n in range(60)]
        with Pool(keys, timeout=5) as pool, Recorder(pool) as run:
            answers = list(pool.map(prompts, cost=cost))
        print(f"{len(answers)} answers, the last one: {answers[-1]}")
        print(run.report())


if __name__ == "__main__":
    main()
