"""Whether a process is over is known for certain, or not at all."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.speaking import ROOT, speaking
from webhooks.process import here, over

NAMED = "import sys, webhooks.process; print(webhooks.process.here(), flush=True); sys.stdin.read()"


def another(*command: str) -> contextlib.AbstractAsyncContextManager[tuple[asyncio.subprocess.Process, str]]:
    """A process that says its name and waits."""
    return speaking(*command, sys.executable, "-c", NAMED)


async def test_who_lives_is_not_over_even_standing_still() -> None:
    me = here()
    async with another() as (process, name):
        assert name.split("-")[0] == me.split("-")[0]
        assert not over(name, me)
        process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED)
        assert not over(name, me)
    assert not over(me, me)


async def test_who_was_killed_is_over() -> None:
    async with another() as (process, name):
        process.kill()
        await process.wait()
        assert over(name, here())
        assert over(f"{name}-more", here()), "a name may go on"


def test_who_was_killed_is_over_before_its_parent_has_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        assert not over(name, here())
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert over(name, here())


def test_a_pid_that_was_given_again_is_another_process() -> None:
    place, pid, started = here().split("-")
    assert over(f"{place}-{pid}-{int(started) - 1}", here())


def test_a_programs_name_need_not_be_text() -> None:
    cut = f"import ctypes; ctypes.CDLL(None).prctl(15, 'Bestätigungenär'.encode()[:15]); {NAMED}"
    with subprocess.Popen([sys.executable, "-c", cut], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        with pytest.raises(UnicodeDecodeError):
            Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        place, pid, started = name.split("-")
        assert (place, pid) == (here().split("-")[0], str(process.pid))
        assert not over(name, here())
        assert over(f"{place}-{pid}-{int(started) - 1}", here())
        process.kill()


def test_of_another_place_nothing_is_known() -> None:
    _, pid, started = here().split("-")
    name = f"{'0' * 16}-{pid}-{int(started) - 1}"
    assert not over(name, here())
    assert not over("00112233445566778899", here()), "as versions before named theirs"
    assert not over("", "")
    assert not over(f"-{pid}-1", "")


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="makes a pid namespace, for which it takes root")
async def test_a_pid_namespace_is_a_place_of_its_own() -> None:
    async with another("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as (_, name):
        if not name:
            pytest.skip("no namespace can be made here")
        assert name.split("-")[0] != here().split("-")[0]
    async with another("unshare", "--pid", "--fork", "--kill-child") as (_, name):
        assert name == "", "/proc speaks of other processes"
