"""`hookline listen`: a running service's events at a local URL, signed, each once, through the service's restarts."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.client import Client
from tests.e2e.test_cli import hookline
from tests.support.api import serving
from tests.support.receiver import Answer, receiving
from tests.support.service import ROOT, Service, token
from tests.support.valkey import free_port
from webhooks.receiver import verify
from webhooks.signing import generate_secret

EVENTS = [{"type": f"invoice.{what}", "data": {"invoiceId": f"i{n}"}} for n, what in enumerate(("paid", "paid", "sent", "lost"))]


async def test_events_arrive_as_webhooks_would_and_the_table_says_what_came_of_each(redis: Redis, tmp_path: Path) -> None:
    secret = generate_secret()
    async with serving(redis, tmp_path) as api, receiving() as receiver:
        receiver.answer(Answer(status=204), Answer(status=500), Answer(status=302, headers={"Location": receiver.url}))
        ids = (await api.call("POST", "/api/events", as_="service", body=EVENTS)).json["ids"]
        arguments = (
            "listen",
            "--forward-to",
            receiver.url,
            "--types",
            "invoice.paid,invoice.sent",
            "--after",
            "0-0",
            "--count",
            "3",
            "--secret",
            secret,
        )
        done = await asyncio.to_thread(hookline, *arguments, folder=tmp_path, HOOKLINE_URL=api.url, HOOKLINE_TOKEN=api.token(role="admin"))
        got = [await receiver.next() for _ in range(3)]
    assert done.returncode == 1, done.stderr
    assert sorted(one.id for one in got) == sorted(ids[:3])
    for one in got:
        event = verify(secret, one.headers, one.body, time.time())
        assert {name: event[name] for name in ("type", "data")} in EVENTS
    assert len(receiver.received) == 3
    lines = done.stdout.splitlines()
    assert sum("invoice." in line and " 204 " in line for line in lines) == 1
    assert any(line[13:].lstrip().startswith("204 ") and " invoice." in line[:50] for line in lines)
    assert any(" 500 " in line and "not a 2xx" in line for line in lines)
    assert any(" 302 " in line and "redirects are not followed" in line for line in lines)
    summary = [line.split() for line in lines[-2:]]
    assert [row[0] for row in summary] == ["invoice.paid", "invoice.sent"]
    assert [sum(int(row[column]) for row in summary) for column in (1, 2)] == [1, 2]
    assert secret not in done.stdout + done.stderr


async def test_a_receiver_that_is_not_there_is_said_and_counted(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as api:
        await api.call("POST", "/api/events", as_="service", body=EVENTS[:1])
        arguments = (
            "listen",
            "-f",
            "http://127.0.0.1:1/hooks",
            "--after",
            "0-0",
            "--count",
            "1",
            "--url",
            api.url,
            "--token",
            api.token(role="admin"),
        )
        done = await asyncio.to_thread(hookline, *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "invoice.paid" in done.stdout
    assert done.stdout.splitlines()[1].endswith("  Connection refused")
    assert "Verify with the secret whsec_" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--forward-to", "localhost:3000"], "is not a URL; write one like http://127.0.0.1:8000/hooks"),
        (["--forward-to", "http://[::1/hooks"], "is not a URL; write one like http://127.0.0.1:8000/hooks"),
        (["--forward-to", "http://127.0.0.1:99999"], "is not a URL; write one like http://127.0.0.1:8000/hooks"),
        (["--forward-to", "http://127.0.0.1:9", "--url", "127.0.0.1:3000"], "is not a URL; write one like http://127.0.0.1:3000"),
        (["--forward-to", "http://127.0.0.1:9", "--secret", "whsec_c2hvcnQ="], "a webhook secret has 24 to 64 bytes"),
        ([], "--forward-to"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_done(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = hookline("listen", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "c2hvcnQ" not in done.stderr


async def test_who_may_not_listen_learns_how_to(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as api:
        stranger = await asyncio.to_thread(hookline, "listen", "-f", "http://127.0.0.1:9", "--url", api.url, folder=tmp_path)
        wrong = await asyncio.to_thread(
            hookline, "listen", "-f", "http://127.0.0.1:9", "--types", "a b", "--url", api.url, "--token", api.token(), folder=tmp_path
        )
    absent = await asyncio.to_thread(hookline, "listen", "-f", "http://127.0.0.1:9", "--url", api.url, "--token", "x", folder=tmp_path)
    assert (stranger.returncode, "hookline token" in stranger.stderr) == (1, True)
    assert (wrong.returncode, "is not a type or pattern" in wrong.stderr) == (1, True)
    assert (absent.returncode, "is it running" in absent.stderr) == (1, True)


@pytest.mark.timeout(120)
async def test_it_goes_on_where_it_was_when_the_service_comes_back(tmp_path: Path) -> None:
    port = free_port()
    service = Service(tmp_path, {}, port=port)
    await service.start()
    async with receiving() as receiver:
        async with Client(service.url, token()) as client:
            ids = await client.publish(EVENTS[:1])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pipeline.cli", "listen", "-f", receiver.url, "--types", "invoice.*", "--after", "0-0",
            "--url", service.url, "--token", token(),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Commands that a shell has put into the background ignore Ctrl-C, and so do their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stderr
        first = await receiver.next(30)
        await service.stop()
        while b"trying again" not in await process.stderr.readline():
            pass
        again = Service(tmp_path, {}, port=port)
        async with again, Client(again.url, token()) as client:
            ids += await client.publish(EVENTS[1:])
            rest = [await receiver.next(30) for _ in EVENTS[1:]]
            process.send_signal(signal.SIGINT)
            output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert sorted(one.id for one in [first, *rest]) == sorted(ids)
    assert len(receiver.received) == len(EVENTS)
    assert process.returncode == 0, errors.decode()
    assert "Traceback" not in errors.decode()
    summary = {line.split()[0]: line.split()[1:] for line in output.decode().splitlines()[-3:]}
    assert summary == {"invoice.paid": ["2", "0"], "invoice.sent": ["1", "0"], "invoice.lost": ["1", "0"]}


async def test_a_slow_receiver_holds_up_nobody_else(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as api, receiving() as receiver:
        receiver.answer(receiver.hang)
        await api.call("POST", "/api/events", as_="service", body=EVENTS)
        arguments = ("listen", "-f", receiver.url, "--after", "0-0", "--count", "4", "--url", api.url, "--token", api.token(role="admin"))
        running = asyncio.create_task(asyncio.to_thread(hookline, *arguments, folder=tmp_path))
        for _ in EVENTS:
            await receiver.next(30)
        receiver.let_go.set()
        done = await running
    assert done.returncode == 0, done.stdout
    assert json.loads(receiver.received[0].body)["type"] == "invoice.paid"
