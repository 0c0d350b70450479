"""The webhook endpoints of config.yaml, as the webhooks take them."""

import ipaddress

from pipeline.config import Config
from pipeline.errors import ConfigError, Fault
from pipeline.filters import compile_filter
from pipeline.yamlsource import Source
from webhooks import Declared, Filters, Guard, InvalidInput

LOOPBACK = ("127.0.0.0/8", "::1/128")


def allowed_networks(config: Config) -> list[str]:
    """Internal networks whose addresses may be dialled."""
    return [*config.webhooks.allow_networks, *(LOOPBACK if config.dev else ())]


def declared(config: Config) -> list[Declared]:
    """In their order."""
    return [
        Declared(
            id=endpoint.id,
            url=endpoint.url,
            types=endpoint.types,
            secret=endpoint.secret.get_secret_value(),
            schedule=endpoint.schedule,
            timeout=endpoint.timeout,
            concurrency=endpoint.concurrency,
            rate=endpoint.rate,
            ordering=endpoint.ordering,
            filter=endpoint.filter,
            payload=endpoint.payload,
            asymmetric=endpoint.asymmetric,
            headers=endpoint.headers,
        )
        for endpoint in config.webhooks.endpoints
    ]


def check(config: Config, source: Source) -> None:
    """Raises ConfigError, with the place in `source`, for what the webhooks would refuse of config.yaml's endpoints; asks no name server."""
    faults: list[Fault] = []
    filters, guard = Filters(compile_filter), Guard(allowed_networks(config))
    for index, endpoint in enumerate(declared(config)):
        at = ("webhooks", "endpoints", index)
        try:
            endpoint.checked(filters)
        except InvalidInput as error:
            named = [(fault.path.removeprefix(f"{endpoint.id}.").split(".")[0], fault.message) for fault in error.faults]
            faults += [source.fault((*at, key), message) for key, message in named] or [source.fault((*at, "id"), str(error))]
        try:
            host = guard.parse_url(endpoint.url).host or ""
            guard.require([host] if _is_address(host) else [])
        except InvalidInput as error:
            faults.append(source.fault((*at, "url"), "; ".join(filter(None, (error.message, error.hint)))))
    if faults:
        raise ConfigError("some webhook endpoints cannot be used", file=source.file, faults=tuple(faults))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
