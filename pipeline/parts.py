"""The parts of the service that a process may run, and the roles that people name them by."""

from typing import Literal, get_args

Part = Literal["api", "engine", "webhooks", "worker"]
ALL: tuple[Part, ...] = get_args(Part)
ROLES: dict[str, tuple[Part, ...]] = {"all": ALL} | {part: (part,) for part in ALL}
