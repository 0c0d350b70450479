"""What expressions may read, and how much of it: of a workflow `input`, `run` and `steps`; other places have variables of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

Fields: TypeAlias = Union[Mapping[str, "Fields | None"], "Each"]
"""What an object has, by name; None: whatever is there, which only the data can tell."""


@dataclass(frozen=True, slots=True)
class Each:
    """An object whose members have names of the user's choosing, and all the same fields."""

    noun: str
    """What a member is."""
    fields: Mapping[str, None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Names:
    """The variables of one kind of place. Compared by identity, so that what was compiled can be kept by it."""

    variables: Mapping[str, Fields | None]
    weight: int
    """How much data an expression may read, counted by `values.weigh` for each place that reads it."""
    loop_weight: int
    """The same for an expression that walks a list: `map` and `filter` copy the list for each element, so their cost is its square."""
    instead: str
    """What to do where an expression would cost too much."""


# 65,536 are about 4 MiB of text. In loops (measured): 100 ms at 2,000 numbers, 2.8 s at 4,000 small objects.
WORKFLOW = Names(
    variables={
        "input": None,
        "run": dict.fromkeys(("id", "workflow", "userId", "createdAt")),
        "steps": Each("step", dict.fromkeys(("result", "status", "error"))),
    },
    weight=65_536,
    loop_weight=2_000,
    instead="do it in a step's processor",
)
