"""The definitions at hand: those of config.yaml by name, and those that stored runs are pinned to by content hash."""

from collections.abc import Mapping

from pipeline.errors import NotFound
from pipeline.store.connection import Store
from pipeline.store.keys import Keys
from pipeline.workflows.definition import Definition


class Definitions:
    def __init__(self, redis: Store, keys: Keys, current: Mapping[str, Definition]) -> None:
        self._redis = redis
        self._keys = keys
        self.current = dict(current)
        self._pinned = {definition.digest: definition for definition in current.values()}

    def named(self, workflow: str) -> Definition:
        """The present definition of a workflow. Raises NotFound."""
        if workflow not in self.current:
            known = ", ".join(sorted(self.current)) or "none"
            raise NotFound(f"there is no workflow {workflow!r}; known: {known}")
        return self.current[workflow]

    def triggered_by(self, queue: str) -> Definition | None:
        """The workflow that a job posted to this queue starts."""
        return next((definition for definition in self.current.values() if queue in definition.triggers), None)

    def at_hand(self, digest: str) -> Definition | None:
        """As `pinned`, if the store need not be asked."""
        return self._pinned.get(digest)

    async def pinned(self, digest: str) -> Definition:
        """The definition that a run started with, whatever config.yaml says now. Raises NotFound."""
        if digest not in self._pinned:
            text = await self._redis.get(self._keys.definition(digest))
            if text is None:
                raise NotFound(f"the definition {digest} is not in the store")
            self._pinned[digest] = Definition.from_json(text)
        return self._pinned[digest]
