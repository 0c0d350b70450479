"""`hookline endpoints` and `hookline deliveries` against a running service and a real receiver."""

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.client import Client
from tests.e2e.test_cli import hookline
from tests.support.receiver import Answer, receiving
from tests.support.service import ROOT, Service, token
from webhooks.receiver import verify


async def test_an_endpoint_is_made_watched_changed_and_removed_from_the_terminal(tmp_path: Path) -> None:
    async with Service(tmp_path, {}) as service, receiving() as receiver:

        async def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            done = await asyncio.to_thread(hookline, *arguments, folder=tmp_path, HOOKLINE_URL=service.url, HOOKLINE_TOKEN=token())
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            return done

        receiver.answer(Answer(status=500, body=b"not today"))
        made = (
            await run(
                "endpoints", "create", receiver.url, "--types", "invoice.*", "--header", "X-Team: billing", "--schedule", "0s,1h", "--rate", "100/1s"
            )
        ).stdout
        endpoint, secret = _field(made, "id"), _field(made, "secret")
        assert secret.startswith("whsec_")
        assert _field(made, "rate") == "100/1s"

        async with Client(service.url, token()) as client:
            await client.publish([{"type": "invoice.paid", "data": {"invoiceId": "i1"}}])
            first = await receiver.next(30)
            assert first.headers["x-team"] == "billing"
            assert verify(secret, first.headers, first.body, time.time())["data"] == {"invoiceId": "i1"}
            delivery = await _attempted(client)

        listed = (await run("deliveries", "list", "--status", "pending", "--endpoint", endpoint)).stdout
        assert re.search(rf"{delivery['id']} +pending +invoice\.paid +{endpoint} +1 +500 ", listed)
        shown = (await run("deliveries", "show", delivery["id"])).stdout
        assert re.search(r"1 +500 +\S+Z +\d+ +127\.0\.0\.1 +answered 500: not today +dns .*connect [\d.]+ ms, .*total ", shown)
        for width in (80, 120):
            narrow = await asyncio.to_thread(_at_terminal, width, "deliveries", "list", url=service.url, folder=tmp_path)
            assert all(len(line) <= width for line in narrow.splitlines())
            assert delivery["id"] in narrow
            assert "…" not in narrow

        assert "paused" in (await run("endpoints", "pause", endpoint)).stdout
        assert "paused" in (await run("endpoints", "list")).stdout
        assert "enabled" in (await run("endpoints", "enable", endpoint)).stdout
        changed = (
            await run("endpoints", "change", endpoint, "--types", "invoice.paid,invoice.sent", "--clear", "rate", "--description", "[bold]")
        ).stdout
        assert (_field(changed, "types"), _field(changed, "description"), "rate" in changed) == ("invoice.paid invoice.sent", "[bold]", False)
        assert _field((await run("endpoints", "rotate-secret", endpoint)).stdout, "secret") != secret
        assert "secret" not in (await run("endpoints", "show", endpoint)).stdout

        refused = await run("deliveries", "replay", delivery["id"], code=1)
        assert "is pending: it will be attempted anyway" in refused.stderr
        await run("endpoints", "delete", endpoint)
        assert f"there is no endpoint {endpoint}" in (await run("endpoints", "show", endpoint, code=1)).stderr
        assert "skipped" in (await run("deliveries", "list")).stdout

        (complaint,) = (await run("endpoints", "create", receiver.url, "--ordering", "documentId", code=1)).stderr.splitlines()
        assert complaint.startswith("error: ordering: an ordering key is a path in the data")
        unsafe = await run("endpoints", "create", "http://169.254.169.254/latest", code=1)
        assert "link-local, cloud metadata" in unsafe.stderr
        assert "a header is written as 'name: value'" in " ".join(
            (await run("endpoints", "create", receiver.url, "--header", "oops", code=2)).stderr.split()
        )
        assert "nothing to change" in " ".join((await run("endpoints", "change", endpoint, code=2)).stderr.split())


def _at_terminal(width: int, *arguments: str, url: str, folder: Path) -> str:
    """What a terminal of that width shows, colours aside."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(width), "HOOKLINE_URL": url, "HOOKLINE_TOKEN": token()}
    with subprocess.Popen([sys.executable, "-m", "pipeline.cli", *arguments], cwd=folder, env=environment, stdout=theirs) as process:
        os.close(theirs)
        said = b""
        # Linux ends a terminal that nobody writes to any more with an error instead of an empty read.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65_536):
                said += part
        os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).replace("\r", "")


async def _attempted(client: Client) -> dict[str, object]:
    """The receiver knows before the store does: wait for the record."""
    async with asyncio.timeout(10):
        while True:
            async for one in client.deliveries():
                if one["attemptCount"]:
                    return one


def _field(shown: str, name: str) -> str:
    (found,) = re.findall(rf"^ *{name} +(.+?) *$", shown, re.MULTILINE)
    return str(found)


@pytest.mark.timeout(120)
async def test_what_was_lost_is_explained_and_sent_again(tmp_path: Path) -> None:
    async with Service(tmp_path, {}) as service, receiving(Answer(status=500)) as receiver:

        async def run(*arguments: str, code: int = 0) -> str:
            done = await asyncio.to_thread(hookline, *arguments, folder=tmp_path, HOOKLINE_URL=service.url, HOOKLINE_TOKEN=token())
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            return done.stdout + done.stderr

        async with Client(service.url, token()) as client:
            endpoint = (await client.create_endpoint(receiver.url, ["invoice.*"], schedule=["0s"]))["id"]
            events = await client.publish([{"type": "invoice.paid", "data": {"invoiceId": f"i{n}"}} for n in range(3)])
            await _until(client, 3, status="exhausted")

        assert "exhausted" in await run("deliveries", "undelivered", "--endpoint", endpoint)
        explained = await run("explain", "--event", events[0], "--endpoint", endpoint)
        assert f"invoice.paid → {endpoint}" in explained
        assert "endpointTypes: invoice.*" in explained
        assert "breaker: closed" in explained
        assert "name an event (--event evt_…) or a run" in " ".join((await run("explain", code=2)).split())
        failed = await run("endpoints", "test", endpoint, code=1)
        assert re.search(r"status +500", failed)
        assert "first_byte" in failed or "firstByte" in failed

        receiver.default = Answer()
        assert re.search(r"status +200", await run("endpoints", "test", endpoint))
        counted = await run("replays", "start", endpoint, "--since", "1d", "--dry-run")
        assert "3 would be sent again" in counted
        assert all(event in counted for event in events)
        receiver.received.clear()
        done = await run("replays", "start", endpoint, "--since", "2026-01-01T00:00:00Z", "--rate", "100/1s")
        assert re.search(r"status +done", done)
        assert re.search(r"replayed +3", done)
        async with Client(service.url, token()) as client:
            await _until(client, 3, status="delivered")
        assert {one.id for one in receiver.received} == set(events)
        assert re.search(rf"done +{endpoint} +3 +3 +0 +2", await run("replays", "list"))
        for command in (["replays", "start", endpoint], ["deliveries", "list"]):
            for text in ("yesterday", "999999999999999d"):
                said = await run(*command, "--since", text, code=2)
                assert f"'{text}' is not a time; write 2h for two hours ago" in " ".join(said.replace("│", " ").split())
        assert "since: lies after until" in await run("deliveries", "list", "--since", "1h", "--until", "2h", code=1)
        # As of a shell's variable that is not set: it does not stand for all there is.
        assert "types: '' is not an event type" in await run("endpoints", "create", receiver.url, "--types", "", code=1)
        for option in ("--types", "--status"):
            assert f"{option[2:]}" in await run("replays", "start", endpoint, "--since", "1d", option, "", code=1)
        assert "no event of run_unknown is among those that are kept" in await run("explain", "--run", "run_unknown")
        assert "delivered" in await run("deliveries", "list", "--event", events[0], "--answered", "2xx")
        rotated = await run("endpoints", "rotate-secret", endpoint, "--overlap", "0s")
        assert "secret" in rotated
        assert "overlap" in await run("endpoints", "rotate-secret", endpoint, "--overlap", "9d", code=1)


async def _until(client: Client, count: int, *, status: str) -> None:
    async with asyncio.timeout(20):
        while len([one async for one in client.deliveries(status=status)]) < count:  # noqa: ASYNC110  from outside there is nothing else to wait for
            await asyncio.sleep(0.05)
