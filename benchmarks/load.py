"""A load generator for machines without wrk: posts one body over so many connections and prints what came of it as JSON.

python -m benchmarks.load URL BODY AUTHORIZATION CONNECTIONS SECONDS prints {"requests", "errors", "seconds", "p50", "p99"}.
"""

import asyncio
import json
import statistics
import sys
import time
from urllib.parse import urlsplit


async def _post(host: str, port: int, request: bytes, until: float, latencies: list[float]) -> int:
    """Posts on one connection until then; returns how many answers were not 201."""
    reader, writer = await asyncio.open_connection(host, port)
    errors = 0
    try:
        while (begun := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            latencies.append(time.perf_counter() - begun)
            errors += not head.startswith(b"HTTP/1.1 201 ")
    finally:
        writer.close()
    return errors


async def main(url: str, body: str, authorization: str, connections: int, seconds: float) -> None:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\nAuthorization: {authorization}\r\n"
    request = f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()
    latencies: list[float] = []
    begun = time.perf_counter()
    errors = await asyncio.gather(*(_post(where.hostname, where.port, request, begun + seconds, latencies) for _ in range(connections)))
    taken = time.perf_counter() - begun
    parts = statistics.quantiles(latencies, n=100)
    found = {"requests": len(latencies), "errors": sum(errors), "seconds": taken, "p50": parts[49] * 1000, "p99": parts[98] * 1000}
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
