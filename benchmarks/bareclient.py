"""What deliveries are measured against: aiohttp's client on uvloop, which signs and posts one body, and neither reads nor records anything.

python -m benchmarks.bareclient '{"url", "body", "concurrency", "count", "warmup"}' prints {"seconds", "cpu", "rss"}.
"""

import asyncio
import itertools
import json
import resource
import sys
import time

import aiohttp
import uvloop

from webhooks.signing import generate_secret, key_of, sign

KEY = key_of(generate_secret())


async def main(url: str, body: str, concurrency: int, count: int, warmup: int) -> None:
    data = body.encode()
    numbers = itertools.count()
    # Its fastest settings.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, timeout=aiohttp.ClientTimeout(total=15)
    ) as session:

        async def post(until: int) -> None:
            while (number := next(numbers)) < until:
                now = int(time.time())
                headers = {
                    "content-type": "application/json",
                    "webhook-id": f"evt_{number}",
                    "webhook-timestamp": str(now),
                    "webhook-signature": sign(KEY, f"evt_{number}", now, data),
                }
                async with session.post(url, data=data, headers=headers, allow_redirects=False) as response:
                    await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"the sink answered {response.status}")

        await asyncio.gather(*(post(warmup) for _ in range(concurrency)))
        numbers = itertools.count()
        begun, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(post(count) for _ in range(concurrency)))
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    uvloop.run(main(**json.loads(sys.argv[1])))
