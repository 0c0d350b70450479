"""A subscriber outside the service: verifies every webhook with the public package and keeps its own ledger in memory."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from tests.support.events import check_told

SECRET = "whsec_" + "c3Vic2NyaWJlciBvZiB0aGUgdGVzdHMhISEh"


class Subscriber:
    """Answers 204 and remembers; use as `async with Subscriber() as subscriber`."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        """Event id → body, of those whose signature was valid."""
        self.deliveries: Counter[str] = Counter()
        self.refused = 0
        self._changed = asyncio.Condition()
        self._webhook = Webhook(SECRET)

    async def __aenter__(self) -> "Subscriber":
        app = web.Application()
        app.add_routes([web.post("/{tail:.*}", self._receive)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hooks"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def endpoint(self, *types: str, id: str = "subscriber") -> dict[str, Any]:
        """Its declaration in config.yaml."""
        return {"id": id, "url": f"{self.url}/{id}", "types": list(types) or ["*"], "secret": SECRET}

    async def until(self, ids: set[str], *, seconds: float = 60.0) -> None:
        """Until each of these events has arrived. Raises TimeoutError with those that have not."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: ids <= self.events.keys())
        except TimeoutError:
            raise TimeoutError(f"{len(ids - self.events.keys())} of {len(ids)} events did not arrive") from None

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = self._webhook.verify(body, dict(request.headers))
        except Exception:  # the package lets several kinds escape; whatever it is, the request was not genuine
            self.refused += 1
            return web.Response(status=401)
        check_told(event["type"], event["data"])
        id = request.headers["webhook-id"]
        self.deliveries[id] += 1
        async with self._changed:
            self.events[id] = event
            self._changed.notify_all()
        return web.Response(status=204)
