"""The order that needs give to steps: what comes before a step, and where needs run in a circle."""

from collections.abc import Mapping

Needs = Mapping[str, tuple[str, ...]]
"""Step id → the ids it needs; ids that are not keys are passed over, for they are another check's fault."""


def ancestors(id: str, needs: Needs) -> set[str]:
    """Every step that has ended when this one begins."""
    found: set[str] = set()
    pending = list(needs[id])
    while pending:
        need = pending.pop()
        if need in needs and need not in found:
            found.add(need)
            pending += needs[need]
    return found


def sorted_by_needs(needs: Needs) -> list[str]:
    """The ids so that each comes after those it needs, and otherwise in the order given. There must be no cycle."""
    placed: dict[str, None] = {}
    waiting = list(needs)
    while waiting:
        ready = [id for id in waiting if all(need in placed for need in needs[id])]
        placed |= dict.fromkeys(ready)
        waiting = [id for id in waiting if id not in placed]
    return list(placed)


def cycle(needs: Needs) -> list[str]:
    """One circle of needs, its first step named again at the end; empty if there is none.

    A step that needs itself is left out: it has a plainer message of its own.
    """
    finished: dict[str, bool] = {}

    def visit(id: str, path: list[str]) -> list[str]:
        if id in finished:
            return [] if finished[id] else [*path[path.index(id) :], id]
        finished[id] = False
        for need in needs[id]:
            if need in needs and need != id and (found := visit(need, [*path, id])):
                return found
        finished[id] = True
        return []

    return next((found for id in needs if (found := visit(id, []))), [])
