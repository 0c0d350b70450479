"""The analysis service: a small subscriber that verifies each webhook with the public `standardwebhooks` package.

    ANALYSIS_WEBHOOK_SECRET=whsec_… python app.py --port 8000

It answers 204 to what is genuine and 401 to what is not, remembers the ids it has seen (delivery is at least once), and writes
one line of JSON per request to standard output.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = web.AppKey("secret", Webhook)
SEEN = web.AppKey("seen", dict)


async def receive(request: web.Request) -> web.Response:
    body = await request.read()
    try:
        event = request.app[SECRET].verify(body, dict(request.headers))
    except (WebhookVerificationError, ValueError) as error:
        # The package lets ValueError escape for malformed headers; to a subscriber both mean: not genuine.
        say(verified=False, id=request.headers.get("webhook-id"), reason=str(error))
        return web.Response(status=401, text="the signature does not fit\n")
    id = request.headers["webhook-id"]
    seen = request.app[SEEN]
    again, seen[id] = id in seen, event
    say(verified=True, id=id, again=again, type=event["type"], runId=event["data"].get("runId"), step=event["data"].get("step"))
    if event["type"] == "job.completed" and event["data"]["job"] == "process-document" and not again:
        analyse(event["data"])
    return web.Response(status=204)


async def received(request: web.Request) -> web.Response:
    """What has arrived so far, by type."""
    return web.json_response(Counter(event["type"] for event in request.app[SEEN].values()))


def analyse(document: dict[str, object]) -> None:
    """Here your work starts: the document is ready, nobody had to ask for it."""


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def create_app(secret: str) -> web.Application:
    app = web.Application()
    app[SECRET] = Webhook(secret)
    app[SEEN] = {}
    app.add_routes([web.post("/hooks", receive), web.get("/received", received)])
    return app


async def serve(host: str, port: int, secret: str) -> None:
    runner = web.AppRunner(create_app(secret))
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    say(listening=f"http://{host}:{runner.addresses[0][1]}/hooks")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Receive Hookline's webhooks and verify them.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free port")
    arguments = parser.parse_args()
    secret = os.environ.get("ANALYSIS_WEBHOOK_SECRET")
    if not secret:
        sys.exit("set ANALYSIS_WEBHOOK_SECRET to the endpoint's secret (whsec_…)")
    asyncio.run(serve(arguments.host, arguments.port, secret))
