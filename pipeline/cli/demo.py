"""`hookline demo`: a real service, six real documents, and every signed webhook checked by a real subscriber."""

import asyncio
import base64
import contextlib
import importlib.util
import json
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.markup import escape

from pipeline.auth import issue
from pipeline.cli.board import Board, Row
from pipeline.cli.console import out
from pipeline.cli.surroundings import ROOT, SUBSCRIBED, background, mail_server, service, subscriber
from pipeline.client import Client
from pipeline.config import Auth
from pipeline.errors import HooklineError
from pipeline.jobs.calls import now_ms

DOCUMENTS = ROOT / "examples" / "documents"
DEADLINE_SECONDS = 150.0
ORIGINAL_CALL = {"documentId": "demo-doc-123", "filename": "sample.pdf", "mimeType": "application/pdf", "fileSize": 1024000}
"""The original system's own request, word for word."""


def demo(keep: Annotated[bool, typer.Option("--keep", help="Stay up at the end and print the address.")] = False) -> None:
    """See it work: six documents through a real service, each step and each verified webhook shown live.

    Needs nothing but this checkout: the store, the mail server and the subscriber are started on free ports and end with it.
    """
    if not DOCUMENTS.is_dir():
        raise HooklineError(f"the demo's documents are not in {DOCUMENTS}", hint="run it in a checkout of Hookline")
    sys.exit(asyncio.run(_Demo(keep).run()))


class _Demo:
    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._board = Board(out)
        self._by_run: dict[str, Row] = {}
        self._early: dict[str, list[Any]] = {}
        """What was heard of runs whose id we did not know yet."""
        self._changed = asyncio.Event()
        self._expected: dict[str, Any] = json.loads((DOCUMENTS / "expected.json").read_text())
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._jwt = secrets.token_urlsafe(32)
        self._mails = 0
        self._undelivered: str | None = None
        """Why a webhook will not arrive any more."""

    async def run(self) -> int:
        folder = Path(tempfile.mkdtemp(prefix="hookline-demo-"))
        try:
            async with contextlib.AsyncExitStack() as stack:
                smtp = await stack.enter_async_context(mail_server(self._mailed))
                hooks = await stack.enter_async_context(subscriber(self._secret, self._delivered))
                self._board.say("starting the service …")
                url, said = await stack.enter_async_context(service(folder, smtp=smtp, hooks=hooks, secret=self._secret, jwt=self._jwt))
                self._board.say(said)
                token = issue(Auth(jwt_secret=SecretStr(self._jwt)), "demo-user", "admin", 3_600_000, now=now_ms())
                client = await stack.enter_async_context(Client(url, token))
                followed = await stack.enter_async_context(background(self._follow(client)))
                with self._board:
                    started = await self._start(client, folder)
                    reason = await self._wait(followed)
                self._board.finish()
                # The verdict is the last line, although the subscriber may hear more.
                self._board.silent = not self._keep
                code = self._verdict(started, reason)
                if self._keep:
                    out.print(f"\nStill up: [bold]{url}[/] (Ctrl-C ends it)\n  export HOOKLINE_URL={url} HOOKLINE_TOKEN={token}", soft_wrap=True)
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()
                return code
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # --- what happens -----------------------------------------------------------------------------------------------

    async def _start(self, client: Client, folder: Path) -> float:
        started = time.monotonic()
        for name, expected in self._expected.items():
            row = self._board.rows[name] = Row(document=name)
            answer = await client.upload(DOCUMENTS / name, mime_type=expected.get("mimeType"))
            self._known(row, answer["runId"])
        row = self._board.rows[str(ORIGINAL_CALL["filename"])] = Row(document=str(ORIGINAL_CALL["documentId"]))
        document = folder / "storage" / "documents" / str(ORIGINAL_CALL["documentId"]) / str(ORIGINAL_CALL["filename"])
        document.parent.mkdir(parents=True)
        document.write_bytes(_maker().sample(ORIGINAL_CALL["fileSize"]))
        answer = await client.request("POST", "/api/auth/workflow/document-upload", body=ORIGINAL_CALL)
        self._known(row, answer["runId"])
        return started

    def _known(self, row: Row, run_id: str) -> None:
        row.run_id = run_id
        self._by_run[run_id] = row
        for take, line in self._early.pop(run_id, []):
            take(line)

    async def _follow(self, client: Client) -> None:
        """Each event of the service, from its first on."""
        async for event in client.follow(after="0-0", types=("job.progress", *SUBSCRIBED, "delivery.exhausted", "endpoint.disabled")):
            self._heard(event)

    def _heard(self, event: dict[str, Any]) -> None:
        self._changed.set()
        data = event["data"]
        if event["type"] in ("delivery.exhausted", "endpoint.disabled"):
            why = [data[name] for name in ("error", "reason") if data.get(name)]
            self._undelivered = f"the subscriber did not take {data['eventType']}: {', '.join(why)}"
            return
        run_id = data.get("runId")
        row = self._by_run.get(run_id)
        if row is None:
            self._early.setdefault(run_id, []).append((self._heard, event))
            return
        said = row.heard(event)
        if said:
            self._board.say(f"{row.document}: {said}")

    def _mailed(self) -> None:
        self._mails += 1

    def _delivered(self, said: dict[str, Any]) -> None:
        """The subscriber says of a webhook that it verified it, or did not."""
        self._changed.set()
        if not said["verified"]:
            self._board.forged.append(said["id"])
            self._board.say(f"webhook received, signature not verified: {said['reason']}")
            return
        run_id = said.get("runId")
        row = self._by_run.get(str(run_id))
        if row is None:
            self._early.setdefault(str(run_id), []).append((self._delivered, said))
            return
        row.received[said["id"]] = said["type"]
        self._board.say(f"{row.document}: webhook {said['type']}{' of ' + said['step'] if said.get('step') else ''} received, signature verified")

    async def _wait(self, followed: "asyncio.Task[None]") -> str | None:
        """Until every run has ended and each of its events has arrived; a reason if they cannot, or that takes too long."""
        rows = self._board.rows.values()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while any(row.seconds is None for row in rows):
                    await self._change(followed)
                while not all(row.due <= row.received.keys() for row in rows):
                    if self._undelivered:
                        return self._undelivered
                    await self._change(followed)
        except TimeoutError:
            slow = [row.document for row in rows if row.seconds is None]
            return f"not done after {DEADLINE_SECONDS:.0f} s: {', '.join(slow) or 'webhooks are missing'}"
        return None

    async def _change(self, followed: "asyncio.Task[None]") -> None:
        self._changed.clear()
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait([changed, followed], return_when=asyncio.FIRST_COMPLETED)
            if followed.done():
                followed.result()
                raise HooklineError("the service's event stream ended")
        finally:
            changed.cancel()

    # --- the verdict ------------------------------------------------------------------------------------------------

    def _verdict(self, started: float, reason: str | None) -> int:
        """The last lines, and the exit code."""
        wrong = [f"{name}: {fault}" for name, expected in self._expected.items() if (fault := _differs(self._board.rows[name], expected))]
        original = self._board.rows[str(ORIGINAL_CALL["filename"])]
        if original.status != "completed":
            wrong.append(f"{original.document}: the run is {original.status} ({original.error})")
        rows = self._board.rows.values()
        verified = sum(len(row.received) for row in rows)
        for line in [*([reason] if reason else []), *wrong]:
            out.print(f"[red]✗[/] {escape(line)}", soft_wrap=True)
        out.print(f"{self._mails} e-mails sent, {time.monotonic() - started:.1f} s")
        met = sum(1 for name, expected in self._expected.items() if not _differs(self._board.rows[name], expected))
        out.print(
            f"{met} of {len(self._expected)} as expected · {verified + len(self._board.forged)} webhooks received, {verified} verified",
            soft_wrap=True,
        )
        return 1 if reason or wrong or self._board.forged else 0


def _differs(row: Row, expected: dict[str, Any]) -> str | None:
    """How a row differs from what examples/documents/expected.json says, if it does."""
    if row.status != expected["run"]:
        return f"the run is {row.status}, not {expected['run']} ({row.error})"
    for step, status in expected.get("steps", {}).items():
        if row.steps.get(step) != status:
            return f"step {step} is {row.steps.get(step)}, not {status}"
    if "reason" in expected and expected["reason"] not in (row.error or ""):
        return f"it failed for another reason than {expected['reason']!r}: {row.error}"
    if "score" in expected:
        low, high = expected["score"]
        if row.score is None or not low <= row.score <= high:
            return f"its score is {row.score}, not {low} to {high}"
    if row.findings is not None and row.findings < expected.get("findings", 0):
        return f"{row.findings} findings, fewer than {expected['findings']}"
    return None


def _maker() -> Any:
    """examples/documents/make.py, which makes the sample of the original's call."""
    spec = importlib.util.spec_from_file_location("make_documents", DOCUMENTS / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
