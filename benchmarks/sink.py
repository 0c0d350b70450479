"""A receiver that costs as little as can be: answers every POST with 200 on a loop of its own; one program for all sides.

python -m benchmarks.sink [COLD] prints its port, and when its input ends {"received"}. With a number it reads the events, and says too how long
after the end of its job (`finishedAt`) each but the first COLD arrived (ms): {"job.completed": {"count", "p50", "p99"}, "workflow.step…": …}.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import orjson
import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
Arrivals = dict[str, float]
"""Job id → when the event came, ms since the epoch."""


class Sink(asyncio.Protocol):
    def __init__(self, saw: "Saw", timed: bool) -> None:
        self._saw = saw
        self._timed = timed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = int(data[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            whole = end + 4 + length
            if len(data) < whole:
                break
            self._transport.write(ANSWER)
            self._saw.received += 1
            if self._timed:
                self._saw.event(orjson.loads(data[end + 4 : whole]))
            data = data[whole:]
        self._rest = data


class Saw:
    """What all connections have seen."""

    def __init__(self) -> None:
        self.received = 0
        self._ended: dict[str, float] = {}
        self._arrived: dict[str, Arrivals] = {"job.completed": {}, "workflow.step.completed": {}}

    def event(self, event: Any) -> None:
        data = event["data"]
        self._arrived[event["type"]][data["jobId"]] = time.time() * 1000
        if "finishedAt" in data:
            self._ended[data["jobId"]] = data["finishedAt"]

    def told(self, cold: int | None) -> dict[str, Any]:
        kinds = self._arrived.items() if cold is not None else ()
        return {"received": self.received} | {kind: _spread([at - self._ended[job] for job, at in arrived.items()][cold:]) for kind, arrived in kinds}


def _spread(latencies: Sequence[float]) -> dict[str, float]:
    parts = statistics.quantiles(latencies, n=100)
    return {"count": len(latencies), "p50": parts[49], "p99": parts[98]}


async def main(cold: int | None) -> None:
    loop = asyncio.get_running_loop()
    saw = Saw()
    server = await loop.create_server(lambda: Sink(saw, cold is not None), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps(saw.told(cold)))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if sys.argv[1:] else None))
