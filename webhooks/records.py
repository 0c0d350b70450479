"""An endpoint as its hash holds it."""

from collections.abc import Mapping
from typing import Any

import orjson

from webhooks.health import Health
from webhooks.model import Endpoint, EndpointStatus, Payload, Sealed, SealedPair
from webhooks.units import parse_rate


def definition(endpoint: Endpoint) -> bytes:
    """What its owner decided, as JSON."""
    return orjson.dumps(
        {
            "url": endpoint.url,
            "types": endpoint.types,
            "secrets": [{"token": secret.token, "until": secret.until} for secret in endpoint.secrets],
            "pairs": [{"token": pair.token, "public": pair.public, "until": pair.until} for pair in endpoint.pairs],
            "headers": endpoint.headers,
            "headerNames": endpoint.header_names,
            "schedule": endpoint.schedule,
            "timeout": endpoint.timeout,
            "rate": None if endpoint.rate is None else str(endpoint.rate),
            "ordering": endpoint.ordering,
            "filter": endpoint.filter,
            "payload": endpoint.payload.value,
            "asymmetric": endpoint.asymmetric,
            "description": endpoint.description,
            "source": endpoint.source,
            "removed": endpoint.removed,
            "created": endpoint.created,
        }
    )


def parse(endpoint: str, fields: Mapping[str, str]) -> Endpoint:
    stored: dict[str, Any] = orjson.loads(fields["definition"])
    return Endpoint(
        id=endpoint,
        url=stored["url"],
        types=tuple(stored["types"]),
        secrets=tuple(Sealed(token=secret["token"], until=secret["until"]) for secret in stored["secrets"]),
        pairs=tuple(SealedPair(token=pair["token"], public=pair["public"], until=pair["until"]) for pair in stored.get("pairs", ())),
        headers=stored["headers"],
        header_names=tuple(stored["headerNames"]),
        status=EndpointStatus(fields["status"]),
        reason=fields.get("reason") or None,
        schedule=None if stored["schedule"] is None else tuple(stored["schedule"]),
        timeout=stored["timeout"],
        concurrency=int(fields["concurrency"]),
        # Absent in what was written before there were such.
        rate=parse_rate(stored["rate"]) if stored.get("rate") else None,
        ordering=stored.get("ordering"),
        filter=stored.get("filter"),
        payload=Payload(stored.get("payload", Payload.FULL)),
        asymmetric=stored.get("asymmetric", False),
        description=stored["description"],
        source=stored["source"],
        removed=stored["removed"],
        created=stored["created"],
        version=int(fields["v"]),
        since=int(fields["since"]) if fields.get("since") else None,
        health=Health.parse(fields),
    )
