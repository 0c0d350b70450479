"""The parts of the service that a process may run, and the roles that people name them by."""

from typing import Literal

Part = Literal["api", "engine", "webhooks", "worker"]
ROLES: dict[str, tuple[Part, ...]] = {
    "all": ("api", "engine", "webhooks", "worker"),
    "api": ("api",),
    "worker": ("worker",),
    "engine": ("engine",),
    "webhooks": ("webhooks",),
}
