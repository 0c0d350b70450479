"""A command's conversation with a running service, and the hint where it cannot be had."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.errors import Unavailable

if TYPE_CHECKING:
    from pipeline.client import Client


@contextmanager
def hints() -> Iterator[None]:
    """Adds to an error what the caller can do about it."""
    from pipeline.client import RequestFailed

    try:
        yield
    except Unavailable as error:
        error.hint = "is it running (hookline serve)? --url or HOOKLINE_URL names another"
        raise
    except RequestFailed as error:
        if error.status == 401:
            error.hint = "export HOOKLINE_TOKEN=$(hookline token --sub me --role admin), with --dev for a service that runs with it"
        elif error.status == 403:
            error.hint = error.hint or "this needs a token of the role admin: hookline token --sub me --role admin"
        raise


def talk(url: str, token: str | None, ask: Callable[["Client"], Awaitable[Any]]) -> Any:
    """What `ask` returns. Raises what the client raises."""
    # Here, as everywhere in the commands, so that `--help` need not wait for an HTTP client.
    from pipeline.client import Client

    async def conversation() -> Any:
        async with Client(url, token) as client:
            return await ask(client)

    with hints():
        return asyncio.run(conversation())
