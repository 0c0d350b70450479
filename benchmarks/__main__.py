"""`make bench`: everything against Node, side by side; writes the table and the picture of benchmarks/results.

python -m benchmarks [--smoke] [--only worker,enqueue,chains,api,deliveries,waiting,durable] [--rounds N] [--waiting N] [--out FOLDER]
"""

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks import api, deliveries, enqueue, flows, machine, opponents, waiting, worker
from benchmarks.report import Section, picture, ratio_table
from benchmarks.size import FULL, SMOKE, Size
from tests.support.valkey import Valkey

RESULTS = Path(__file__).parent / "results"
HEAD = """# Benchmarks

What `make bench` saw when it was last run. A ratio is ours by Node's, of two rounds that were run one after the other; compare within a table only.
"""
Part = Callable[[Valkey, Any, Size], Awaitable[Section]]


async def workers(store: Valkey, redis: Any, size: Size) -> Section:
    return await worker.run(store, redis, size, where=worker.USUAL)


async def durable(store: Valkey, redis: Any, size: Size) -> Section:
    """As `workers`, with the store as it is embedded."""
    settings = {"appendonly": "yes", "appendfsync": "always"}
    for name, value in settings.items():
        await redis.config_set(name, value)
    try:
        return await worker.run(store, redis, dataclasses.replace(size, concurrencies=(50,), keeps=("keep 100",)), where="appendfsync always")
    finally:
        await redis.config_set("appendonly", "no")


PARTS: dict[str, Part] = {
    "worker": workers,
    "durable": durable,
    "enqueue": enqueue.run,
    "chains": flows.run,
    "api": api.run,
    "deliveries": deliveries.run,
    "waiting": waiting.run,
}


async def measure(size: Size, parts: list[str]) -> tuple[list[str], list[Section]]:
    for project in (opponents.BULLMQ, opponents.NEST):
        await opponents.install(project)
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder, Valkey(Path(folder)) as store:
        redis = Redis.from_url(store.url, decode_responses=True, socket_timeout=None)
        try:
            return await machine.described(redis), [await PARTS[part](store, redis, size) for part in parts]
        finally:
            await redis.aclose()


def write(folder: Path, where: list[str], sections: list[Section]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ratios = [ratio for section in sections for ratio in section.ratios]
    bars = [bar for section in sections for bar in section.bars]
    summary = ["## Ratios", "", *ratio_table(ratios), "", "![Rates side by side](bench.svg)", ""]
    (folder / "bench.md").write_text("\n".join([HEAD, *where, "", *summary, *(section.markdown() for section in sections)]))
    (folder / "bench.svg").write_text(picture(bars, "; ".join(line.removeprefix("- ") for line in where[:1]) + "; see bench.md"))
    (folder / "bench.json").write_text(json.dumps({"ratios": [dataclasses.asdict(ratio) for ratio in ratios]}, indent=1) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--smoke", action="store_true", help="as small as it can be: shows that everything works, says nothing of speed")
    arguments.add_argument("--only", default=",".join(PARTS), help="the parts to run, with commas")
    arguments.add_argument("--rounds", type=int)
    arguments.add_argument("--waiting", type=int, help="jobs of the great backlog, for instance 1000000")
    arguments.add_argument("--out", type=Path, help=f"where the results go; {RESULTS} for a whole run, else they are only printed")
    asked = arguments.parse_args()
    parts = asked.only.split(",")
    if unknown := set(parts) - set(PARTS):
        arguments.error(f"no such part: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in (("rounds", asked.rounds), ("waiting", asked.waiting)) if value}
    try:
        where, sections = asyncio.run(measure(dataclasses.replace(SMOKE if asked.smoke else FULL, **given), parts))
    except opponents.NodeMissing as error:
        sys.exit(str(error))
    print(
        "\n".join([*where, "", *(section.markdown() for section in sections), *ratio_table([one for section in sections for one in section.ratios])])
    )
    whole = not asked.smoke and parts == list(PARTS)
    if folder := asked.out or (RESULTS if whole else None):
        write(folder, where, sections)
        print(f"\nwritten to {folder}")


if __name__ == "__main__":
    main()
