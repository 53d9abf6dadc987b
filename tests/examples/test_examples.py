"""The programs in examples/ do what they say, as a reader would run them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 50  # seconds until a program that hangs fails its test

# The folder of a program is on its path then, for `_server`; what is installed is the same as for the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        command(name, *arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=ENVIRONMENT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


PROGRAMS = sorted(path.name for path in EXAMPLES.glob("[!_]*.py"))


def test_there_are_six() -> None:
    assert PROGRAMS == ["batch.py", "databases.py", "devices.py", "llm_keys.py", "scraper.py", "service.py"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_short_and_begins_with_what_it_does(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert 30 <= len(text.splitlines()) <= 65
    assert name in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_scraper_finds_all_pages_and_says_which_proxies_are_no_good() -> None:
    said = run("scraper.py")
    assert said.startswith("192 pages, from 'page 1' to 'page 199'\n8 pages are not there\n")
    # How slow the slow one is beside the others depends on what else the machine does.
    assert re.search(r"^- proxy-banned (failed all|was ejected)", said, re.MULTILINE)
    assert re.search(r"^proxy-slow +\d+ ", said, re.MULTILINE)


def test_keys_keep_their_limits() -> None:
    said = run("llm_keys.py")
    assert said.startswith(
        "60 answers, the last one: TELL ME IN ONE SHORT SENTENCE WHAT THE NUMBER 59 MEANS\n"
    )
    assert re.search(r"^- key-revoked (failed all|was ejected)", said, re.MULTILINE)


def test_lost_connections_cost_no_query() -> None:
    said = run("databases.py")
    assert re.match(r"100 queries answered, [1-9]\d* of them after their connection was lost\n", said)
    assert "the wrong one was tried 1 time: no such table: select * from order\n" in said


def test_device_that_hangs_holds_up_no_task() -> None:
    said = run("devices.py")
    assert said.startswith("30 installs, 5 photos\nphotos by phone-1")
    assert re.search(r"timed_out on phone-hung after \d+\.\d\d s\n.*: succeeded on phone-", said)


def test_batch_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    journal = tmp_path / "batch.db"
    log = tmp_path / "batch.db-wal"
    with subprocess.Popen(
        command("batch.py", str(journal)), stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as first:
        # By then a few pages have been done; if it is quicker than that, all of them.
        while first.poll() is None and not (log.exists() and log.stat().st_size > 60_000):
            time.sleep(0.01)
        first.kill()
    found = re.fullmatch(
        r"(\d+) pages fetched now, ([1-9]\d*) known from before\n"
        r"12 are not there; the last one says \"page 299\"\n",
        run("batch.py", str(journal)),
    )
    assert found
    assert int(found[1]) + int(found[2]) == 300
    assert run("batch.py", str(journal)).startswith("0 pages fetched now, 300 known from before\n")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_service_finishes_what_it_has_accepted_when_it_is_told_to_go() -> None:
    with subprocess.Popen(
        command("service.py"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            ids = [ask(address, page)["id"] for page in [*"abcdefghij", "broken"]]
            assert ask(f"{address}{ids[0]}")["state"] in ("queued", "running", "succeeded")
            with pytest.raises(urllib.error.HTTPError, match="404") as missing:
                ask(f"{address}999999")
            missing.value.close()
            process.send_signal(signal.SIGTERM)
            said, complaints = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert said == "10 rendered, 1 failed, 0 left\n", complaints
    assert process.returncode == 128 + signal.SIGTERM


def ask(address: str, page: str | None = None) -> dict[str, object]:
    data = None if page is None else page.encode()
    with urllib.request.urlopen(address, data, timeout=PATIENCE) as response:
        answer: dict[str, object] = json.load(response)
    return answer
