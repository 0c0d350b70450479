"""The analysis service, second variant: Hookline asks it to do the work (push), and it calls back when it is done.

    PUSH_SECRET=whsec_… python analyse.py --port 8001

A job of config.yaml's `processors: {analyze-risk: "http://…:8001/jobs"}` arrives as a signed POST. It is answered with 202 at once,
done in its own time, and reported over the link that came with it.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from datetime import datetime
from typing import Any

import aiohttp
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = web.AppKey("secret", Webhook)
DONE = web.AppKey("done", dict)
TASKS = web.AppKey("tasks", set)
PAUSES = (1, 2, 5, 10, 30)
"""Seconds between attempts to call back."""


async def receive(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        job = request.app[SECRET].verify(body, dict(request.headers))["data"]
    except (WebhookVerificationError, ValueError):
        return web.Response(status=401, text="the signature does not fit\n")
    # Here a service that must not forget writes the job down: after the 202, Hookline waits for the callback alone.
    task = asyncio.create_task(work(request.app, job))
    request.app[TASKS].add(task)
    task.add_done_callback(request.app[TASKS].discard)
    return web.Response(status=202)


async def work(app: web.Application, job: dict[str, Any]) -> None:
    """The same job may be asked for twice (a request is repeated when its answer was lost): it is done once."""
    key = job["idempotencyKey"]
    if key not in app[DONE]:
        app[DONE][key] = assess(job["data"])
    status = await call_back(job["callbackUrl"], {"result": app[DONE][key]}, until=datetime.fromisoformat(job["callbackDeadline"]).timestamp())
    say(jobId=job["jobId"], callback=status)


async def call_back(link: str, answer: dict[str, Any], *, until: float) -> int | None:
    """The status: 200, or a 4xx, which says that this answer is not wanted (any more). None if Hookline could not be reached in time."""
    pauses = itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        while True:
            try:
                async with session.post(link, json=answer) as response:
                    if response.status < 500:
                        return response.status
            except (aiohttp.ClientError, TimeoutError) as error:
                say(callback=type(error).__name__)  # it may be starting again
            if time.time() > until:
                return None
            await asyncio.sleep(next(pauses))


def assess(data: dict[str, Any]) -> dict[str, Any]:
    """Here your work happens."""
    score = data.get("score")
    return {"risk": "unknown" if score is None else "high" if score < 50 else "low"}


async def healthy(request: web.Request) -> web.Response:
    return web.json_response({"jobs": len(request.app[TASKS])})


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def create_app(secret: str) -> web.Application:
    app = web.Application()
    app[SECRET] = Webhook(secret)
    app[DONE] = {}
    app[TASKS] = set()
    app.add_routes([web.post("/jobs", receive), web.get("/health", healthy)])
    return app


async def serve(host: str, port: int, secret: str) -> None:
    runner = web.AppRunner(create_app(secret))
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    say(listening=f"http://{host}:{runner.addresses[0][1]}/jobs")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do Hookline's pushed jobs and call back.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8001, help="0 takes any free port")
    arguments = parser.parse_args()
    secret = os.environ.get("PUSH_SECRET")
    if not secret:
        sys.exit("set PUSH_SECRET to the value of push.secret (whsec_…)")
    asyncio.run(serve(arguments.host, arguments.port, secret))
