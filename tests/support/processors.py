"""Processors of the tests: each run leaves a line in a ledger outside the store."""

import asyncio
import os
import time
from typing import Any

from pipeline.jobs.model import Context, Job
from pipeline.jobs.registry import processor


def note(job: Job, what: str) -> None:
    """One line, appended whole: `<what> <queue> <job id> <attempt>`."""
    ledger = os.open(os.environ["LEDGER"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    try:
        os.write(ledger, f"{what} {job.queue} {job.id} {job.attempt}\n".encode())
    finally:
        os.close(ledger)


async def work(job: Job, context: Context) -> Any:
    """Takes `ms` of the data, reports progress, and returns the data."""
    note(job, "begin")
    await context.progress(50)
    await asyncio.sleep(job.data.get("ms", 0) / 1000)
    note(job, "end")
    return {"got": job.data}


async def fail(job: Job, context: Context) -> Any:
    note(job, "begin")
    raise RuntimeError(f"attempt {job.attempt} of {job.attempts} failed")


async def fail_once(job: Job, context: Context) -> Any:
    note(job, "begin")
    if job.attempt == 1:
        raise RuntimeError("the first attempt always fails")
    return {"attempt": job.attempt}


@processor("do", isolated=True, timeout="1s")
def never_end(job: Job, context: Any) -> Any:
    note(job, "begin")
    while True:
        pass


@processor("do", isolated=True, memory="300MiB")
def eat_memory(job: Job, context: Any) -> Any:
    note(job, "begin")
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (8 << 20)))


async def block(job: Job, context: Context) -> Any:
    """What an async processor must not do."""
    time.sleep(2)  # noqa: ASYNC251


async def wait_for_ever(job: Job, context: Context) -> Any:
    note(job, "begin")
    try:
        await asyncio.Event().wait()
    finally:
        note(job, "stopped")
