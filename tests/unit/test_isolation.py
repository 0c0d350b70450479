"""Isolated processors in real child processes: results, limits, deaths, cancellation, secrets."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from pipeline.config import Auth, Config
from pipeline.errors import AttemptFailed, HooklineError, PermanentFailure
from pipeline.jobs import childprocess
from pipeline.jobs.childprocess import revealed
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.model import Job, Origin
from pipeline.jobs.registry import resolve

CONFIG = Config(auth=Auth(jwt_secret=SecretStr("s3cret-of-the-tokens")))


class Recorder:
    """A context that keeps what it is told, and wakes who waits for it."""

    idempotency_key = "key-1"

    def __init__(self) -> None:
        self.cancelled = False
        self.reported: list[int] = []
        self.logged: list[tuple[str, str, dict[str, Any]]] = []
        self.changed = asyncio.Event()
        self.log: Any = self

    def __getattr__(self, level: str) -> Any:
        def write(event: str, **values: Any) -> None:
            self.logged.append((level, event, values))
            self.changed.set()

        return write

    async def progress(self, percent: int) -> None:
        self.reported.append(percent)

    async def heartbeat(self) -> None: ...

    async def line(self, event: str) -> dict[str, Any]:
        while True:
            for _, said, values in self.logged:
                if said == event:
                    return values
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)


def job(data: Any = None, *, origin: Origin | None = None) -> Job:
    return Job(id="1", queue="q", name="n", data=data if data is not None else {}, attempt=2, attempts=3, timestamp=1, origin=origin)


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., IsolatedPool]]:
    pools = []

    def make(name: str, *, size: int = 1, config: Config = CONFIG) -> IsolatedPool:
        pools.append(IsolatedPool(resolve(f"tests.support.isolated:{name}", config), config, size))
        return pools[-1]

    yield make
    for made in pools:
        await made.close()


async def failure(pool: IsolatedPool, data: Any = None, context: Recorder | None = None) -> HooklineError:
    with pytest.raises(HooklineError) as caught:
        await pool.run(job(data), context or Recorder())
    return caught.value


async def test_a_result_progress_and_logs_come_back_and_the_child_stays_warm(pool: Any) -> None:
    doubling, context = pool("double"), Recorder()
    first = await doubling.run(job({"amount": 21}), context)
    second = await doubling.run(job({"amount": 1}), Recorder())
    assert first == {"doubled": 42, "pid": first["pid"], "attempt": 2, "key": "key-1"}
    assert second["pid"] == first["pid"] != os.getpid()
    assert context.reported == [50]
    assert ("info", "doubling", {"amount": 21}) in context.logged
    assert ("warning", "a module's own logger", {}) in context.logged


async def test_a_child_gives_way_to_the_service(pool: Any) -> None:
    pid = (await pool("double").run(job({"amount": 1}), Recorder()))["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)


async def test_wrong_data_fails_for_good_and_names_the_field(pool: Any) -> None:
    failed = await failure(pool("double"), {"amount": 0})
    assert type(failed) is PermanentFailure
    assert failed.message == "the job's data does not fit: amount: Input should be greater than or equal to 1"


async def test_a_coroutine_is_awaited(pool: Any) -> None:
    context = Recorder()
    origin = Origin(run="run_1", workflow="w", step="s", n=1)
    assert await pool("in_coroutine").run(job(origin=origin), context) == {"run": "run_1", "cancelled": False}
    assert context.reported == [10]


async def test_secrets_go_through_the_pipe_alone(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKLINE_JWT_SECRET", "s3cret-of-the-tokens")
    monkeypatch.setenv("REDIS_URL", "redis://:password@127.0.0.1")
    result = await pool("WithConfig").run(job(), Recorder())
    assert result["prepared"]
    assert result["read_secret"] == "s3cret-of-the-tokens"
    assert "s3cret" not in result["argv"]
    assert not [name for name in result["environment"] if name.startswith(("HOOKLINE_", "REDIS_"))]


def test_a_configuration_survives_the_way_into_a_child() -> None:
    config = Config.model_validate(
        {
            "redis": {"url": "redis://:pw@127.0.0.1:1"},
            "notifications": {"email": "mailto://u:p@h"},
            "queues": {"q": {"processors": {"a": "b:c"}, "backoff": {"delay": "90s"}}},
            "webhooks": {"endpoints": [{"id": "e", "url": "http://h/x", "secret": "whsec_x", "timeout": "3s"}]},
        }
    )
    assert Config.model_validate(revealed(config)) == config


def isolated_children() -> list[psutil.Process]:
    """Ours; the store of other tests in this process is a child as well."""
    return [child for child in psutil.Process().children(recursive=True) if "pipeline.jobs.child" in child.cmdline()]


@pytest.mark.parametrize("chatty", [False, True])
async def test_one_that_eats_memory_is_killed_and_fails_for_good(pool: Any, chatty: bool) -> None:
    failed = await failure(pool("eat"), {"chatty": chatty})
    assert type(failed) is PermanentFailure
    assert failed.message.startswith("eat exceeded its memory limit of 200 MiB (held ")
    assert failed.message.endswith(" MiB) and was killed")
    assert not isolated_children()


async def test_one_that_eats_memory_is_killed_also_where_there_is_no_proc(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(childprocess, "PROC_READABLE", False)
    failed = await failure(pool("eat"), {})
    assert failed.message.startswith("eat exceeded its memory limit of 200 MiB (held ")


async def test_asking_for_too_much_at_once_fails_without_harm(pool: Any) -> None:
    failed = await failure(pool("gulp"))
    assert type(failed) is PermanentFailure
    assert failed.message == "gulp exceeded its memory limit of 64 MiB (asked for more at once)"


@pytest.mark.parametrize("data", [{}, {"chatty": True}, {"hold_interpreter": True}])
async def test_one_that_never_ends_is_killed_and_fails_for_good(pool: Any, data: dict[str, Any]) -> None:
    failed = await failure(pool("never_ends"), data)
    assert type(failed) is PermanentFailure
    assert failed.message == "never_ends exceeded its time limit of 400ms and was killed"
    assert not isolated_children()


@pytest.mark.parametrize(
    ("data", "how"),
    [
        ({"exit": 7}, "ended with exit code 7"),
        ({"signal": "SIGSEGV"}, "was killed by SIGSEGV"),
        ({"signal": "SIGKILL"}, "was killed by SIGKILL (perhaps by the system, for want of memory)"),
    ],
)
async def test_a_death_fails_the_attempt_and_the_next_has_a_new_child(pool: Any, data: dict[str, Any], how: str) -> None:
    dying = pool("dies")
    for _ in range(2):
        failed = await failure(dying, data)
        assert type(failed) is AttemptFailed
        assert failed.message == f"the child process of dies {how} before it had a result"
    if "exit" in data:
        assert "last words" in str(failed.__cause__)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("permanent", PermanentFailure, "never works"),
        ("other", AttemptFailed, "works perhaps next time"),
        ("exit", AttemptFailed, "the processor called exit(3)"),
        ("surrogate", AttemptFailed, "broken \\udcff name"),
    ],
)
async def test_what_a_processor_raises(pool: Any, kind: str, error: type[HooklineError], message: str) -> None:
    raising = pool("raises")
    failed = await failure(raising, {"kind": kind})
    assert type(failed) is error
    assert failed.message == message
    if error is AttemptFailed:
        assert "tests/support/isolated.py" in str(failed.__cause__)


@pytest.mark.parametrize(("what", "message"), [("nan", "is not JSON"), ("set", "is not JSON"), ("large", "the limit is 65,536 (64 KiB)")])
async def test_a_result_that_cannot_be_kept_fails_for_good(pool: Any, what: str, message: str) -> None:
    returning = pool("returns")
    failed = await failure(returning, what)
    assert type(failed) is PermanentFailure
    assert message in failed.message
    assert await returning.run(job("none"), Recorder()) is None


async def test_a_processor_that_cannot_start_says_why(pool: Any) -> None:
    failed = await failure(pool("CannotStart"))
    assert type(failed) is AttemptFailed
    assert failed.message == "CannotStart cannot start: its library is missing"


@pytest.mark.parametrize("by", ["task", "context"])
async def test_cancelling_kills_the_child_and_what_it_started(pool: Any, by: str) -> None:
    waiting, context = pool("waits"), Recorder()
    task = asyncio.create_task(waiting.run(job(), context))
    pids = await context.line("waiting")
    assert psutil.pid_exists(pids["pid"])
    assert psutil.pid_exists(pids["started"])
    if by == "task":
        task.cancel()
    else:
        context.cancelled = True
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pids["pid"])
    await gone(pids["started"])


async def test_no_more_than_size_children_work_at_a_time(pool: Any) -> None:
    doubling = pool("double", size=2)
    results = await asyncio.gather(*(doubling.run(job({"amount": n + 1}), Recorder()) for n in range(8)))
    assert [result["doubled"] for result in results] == [2 * (n + 1) for n in range(8)]
    assert len({result["pid"] for result in results}) == 2


async def test_a_child_is_replaced_after_so_many_jobs(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(childprocess, "JOBS_PER_CHILD", 2)
    doubling = pool("double")
    pids = [(await doubling.run(job({"amount": 1}), Recorder()))["pid"] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]


async def test_a_child_that_died_while_idle_is_replaced_unseen(pool: Any) -> None:
    doubling = pool("double")
    pid = (await doubling.run(job({"amount": 1}), Recorder()))["pid"]
    for waits in (True, False, False, False):
        os.kill(pid, signal.SIGKILL)
        if waits:
            await gone(pid)
        before, pid = pid, (await doubling.run(job({"amount": 1}), Recorder()))["pid"]
        assert pid != before


async def test_close_kills_the_children(pool: Any) -> None:
    doubling = pool("double")
    result = await doubling.run(job({"amount": 1}), Recorder())
    await doubling.close()
    assert not alive(result["pid"])
    with pytest.raises(AttemptFailed, match="is closed"):
        await doubling.run(job({"amount": 1}), Recorder())


async def test_a_pool_that_closes_while_a_child_starts_has_nothing_to_complain_of(pool: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    mine = pool("StartsForEver", config=Config(folder=str(tmp_path)))
    warming = asyncio.create_task(mine.warm())
    await asyncio.to_thread((tmp_path / "started").read_text)
    await mine.close()
    await warming


async def test_children_end_when_the_worker_is_killed(tmp_path: Path) -> None:
    script = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.unit.test_isolation import CONFIG, Recorder, job
from pipeline.jobs.isolation import IsolatedPool
from pipeline.jobs.registry import resolve
async def main():
    pool, context = IsolatedPool(resolve("tests.support.isolated:waits", CONFIG), CONFIG, 1), Recorder()
    task = asyncio.create_task(pool.run(job(), context))
    pids = await context.line("waiting")
    print(pids["pid"], pids["started"], flush=True)
    await task
asyncio.run(main())
"""
    root = str(Path(__file__).parents[2])
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, root, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout
    child, grandchild = (int(pid) for pid in (await worker.stdout.readline()).split())
    worker.kill()
    await worker.wait()
    await gone(child)
    await gone(grandchild)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> None:
    """A process of others cannot be waited for, only looked at."""
    async with asyncio.timeout(10):
        while alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
