"""Replay: send again what was delivered, exhausted or skipped."""

import secrets
from collections.abc import Callable

from webhooks.deliveries import Deliveries
from webhooks.errors import Conflict, NotFound
from webhooks.keys import Keys
from webhooks.model import Delivery
from webhooks.scripts import Script, Store


class Replay:
    def __init__(self, redis: Store, keys: Keys, deliveries: Deliveries, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._deliveries = deliveries
        self._clock = clock
        self._script = Script(redis, "replay")

    async def one(self, delivery: str) -> Delivery:
        """Make a delivery due now, with the whole schedule before it; its attempts go on counting and `webhook-id` stays.

        Raises NotFound, and Conflict where it is pending anyway or its endpoint cannot be served.
        """
        answer = await self._script([self._keys.prefix], [self._clock(), delivery, secrets.token_hex(8)])
        match answer:
            case "missing":
                raise NotFound(f"there is no delivery {delivery}, or it is no longer kept")
            case "pending":
                raise Conflict(f"{delivery} is pending: it will be attempted anyway")
            case "no-endpoint":
                raise Conflict(f"the endpoint of {delivery} was deleted")
            case "disabled":
                raise Conflict(f"the endpoint of {delivery} is disabled", hint="enable the endpoint first")
        return await self._deliveries.get(delivery)
