"""The webhook endpoints of config.yaml, as the webhooks take them."""

from pipeline.config import Config
from pipeline.errors import ConfigError, Fault
from pipeline.filters import compile_filter
from pipeline.yamlsource import Source
from webhooks import Declared, Filters, InvalidInput


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
    filters = Filters(compile_filter)
    for index, endpoint in enumerate(declared(config)):
        at = ("webhooks", "endpoints", index)
        try:
            endpoint.checked(filters)
        except InvalidInput as error:
            named = [(fault.path.removeprefix(f"{endpoint.id}.").split(".")[0], fault.message) for fault in error.faults]
            faults += [source.fault((*at, key), message) for key, message in named] or [source.fault((*at, "id"), str(error))]
    if faults:
        raise ConfigError("some webhook endpoints cannot be used", file=source.file, faults=tuple(faults))
