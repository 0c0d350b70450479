"""The processors of the benchmarks: they do nothing, as the opponents' do."""

from typing import Any

from pipeline.jobs.model import Context, Job


async def noop(job: Job, context: Context) -> None:
    """A job that is all queue."""


async def echo(job: Job, context: Context) -> Any:
    """A step whose result the next one reads."""
    return job.data
