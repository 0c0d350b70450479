"""The analysis service, second variant: Hookline asks it to do the work (push), and it calls back when it is done.

    PUSH_SECRET=whsec_… python analyse.py --port 8001

A job of config.yaml's `processors: {analyze-risk: "http://…:8001/jobs"}` arrives as a signed POST. It is answered with 202 at once,
done in its own time, and reported over the link that came with it.
"""

import argparse
import asyncio
import json
import os
import sys
from typing import Any

import aiohttp
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = web.AppKey("secret", Webhook)
DONE = web.AppKey("done", dict)
TASKS = web.AppKey("tasks", set)


async def receive(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        job = request.app[SECRET].verify(body, dict(request.headers))["data"]
    except (WebhookVerificationError, ValueError):
        return web.Response(status=401, text="the signature does not fit\n")
    task = asyncio.create_task(work(request.app, job))
    request.app[TASKS].add(task)
    task.add_done_callback(request.app[TASKS].discard)
    return web.Response(status=202)


async def work(app: web.Application, job: dict[str, Any]) -> None:
    """The same job may be asked for twice (a request is repeated when its answer was lost): it is done once."""
    key = job["idempotencyKey"]
    if key not in app[DONE]:
        app[DONE][key] = assess(job["data"])
    async with aiohttp.ClientSession() as session, session.post(job["callbackUrl"], json={"result": app[DONE][key]}) as response:
        print(json.dumps({"jobId": job["jobId"], "callback": response.status}), flush=True)


def assess(data: dict[str, Any]) -> dict[str, Any]:
    """Here your work happens."""
    score = data.get("score")
    return {"risk": "unknown" if score is None else "high" if score < 50 else "low"}


def create_app(secret: str) -> web.Application:
    app = web.Application()
    app[SECRET] = Webhook(secret)
    app[DONE] = {}
    app[TASKS] = set()
    app.add_routes([web.post("/jobs", receive)])
    return app


async def serve(port: int, secret: str) -> None:
    runner = web.AppRunner(create_app(secret))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(json.dumps({"listening": f"http://127.0.0.1:{runner.addresses[0][1]}/jobs"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do Hookline's pushed jobs and call back.")
    parser.add_argument("--port", type=int, default=8001, help="0 takes any free port")
    arguments = parser.parse_args()
    secret = os.environ.get("PUSH_SECRET")
    if not secret:
        sys.exit("set PUSH_SECRET to the value of push.secret (whsec_…)")
    asyncio.run(serve(arguments.port, secret))
