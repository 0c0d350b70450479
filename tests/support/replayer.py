"""Steps a replay in one process after another, each of which kills itself at a border of a step; says on each line how one ended.

A process of its own, without threads: it forks one for every line that it reads: `<ms since the epoch> <steps to do> <before|after>`.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from pipeline.store.connection import connect
from tests.support.hooks import Clock, Hooks


async def work(url: str, replay: str, now: int, steps: int, border: str) -> None:
    """Do so many steps, and die just before or just after the script of the next."""
    clock = Clock()
    clock.now = now
    replaying = Hooks(connect(url), clock).webhooks.replaying
    script = replaying._script

    async def deadly(keys: list[str], arguments: list[Any]) -> Any:
        nonlocal steps
        steps -= 1
        if steps < 0 and border == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await script(keys, arguments)
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    replaying._script = deadly  # type: ignore[assignment]
    while await replaying.step(replay) == 0:
        pass


def main(url: str, replay: str) -> None:
    for line in sys.stdin:
        now, steps, border = line.split()
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # its log is no answer
            asyncio.run(work(url, replay, int(now), int(steps), border))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print("killed" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
