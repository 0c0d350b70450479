"""Every Redis key of this package, below the one prefix it is given; `prelude.lua` builds the same ones for the scripts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    prefix: str

    @property
    def endpoints(self) -> str:
        """Sorted set: endpoint ids by creation time (ms)."""
        return f"{self.prefix}:endpoints"

    @property
    def version(self) -> str:
        """Counter: +1 with every change of any endpoint."""
        return f"{self.prefix}:version"

    @property
    def changes(self) -> str:
        """Sorted set: endpoint ids by the version of their last change, the deletion included; '' for deletions that are forgotten."""
        return f"{self.prefix}:changes"

    def endpoint(self, endpoint: str) -> str:
        """Hash: `definition` (JSON), `status`, `since` (ms), `reason`, `concurrency`, `lease` (ms), `rate` (`count/ms`), `v` (own version);
        what claims leave: `tat` (ms, of its rate) and `turn` (of fresh ones and retries); its health, see `health.lua`."""
        return f"{self.prefix}:endpoint:{endpoint}"

    def event(self, event: str) -> str:
        """Hash: `body` and `n`, as `body` and `refs` were kept by earlier versions."""
        return f"{self.prefix}:event:{event}"

    def body(self, event: str) -> str:
        """String: the event as sent."""
        return f"{self.prefix}:body:{event}"

    def refs(self, event: str) -> str:
        """Counter: how many delivery records refer to an event; its body goes with the last of them."""
        return f"{self.prefix}:refs:{event}"

    def delivery(self, delivery: str) -> str:
        """Hash: the delivery record; see `model.Delivery`, and `base`, `line` in `prelude.lua`."""
        return f"{self.prefix}:delivery:{delivery}"

    def attempts(self, delivery: str) -> str:
        """List: attempt records (JSON), oldest first, the last 50."""
        return f"{self.prefix}:attempts:{delivery}"

    def deliveries(self, index: str = "all", value: str = "") -> str:
        """Sorted set: delivery ids by creation time (ms): all, or those of one `endpoint`, one `run`, or one `status` other than delivered."""
        return f"{self.prefix}:deliveries:{index}:{value}" if value else f"{self.prefix}:deliveries:{index}"

    @property
    def finished(self) -> str:
        """Sorted set: ids of deliveries that are not pending, by when they ended (ms): what retention removes."""
        return f"{self.prefix}:finished"

    @property
    def swept(self) -> str:
        """Text: up to when (ms) deliveries had ended that retention removed."""
        return f"{self.prefix}:swept"

    def mailbox(self, endpoint: str) -> str:
        """Sorted set: pending deliveries of one endpoint that were not attempted yet, by when they are due (ms), with their event: `prelude.lua`."""
        return f"{self.prefix}:mailbox:{endpoint}"

    def retries(self, endpoint: str) -> str:
        """Sorted set: pending deliveries of one endpoint that failed before, by when they are due (ms)."""
        return f"{self.prefix}:retries:{endpoint}"

    def leases(self, endpoint: str) -> str:
        """Sorted set: deliveries of one endpoint being attempted, by when their lease runs out (ms)."""
        return f"{self.prefix}:leases:{endpoint}"

    def line(self, endpoint: str, key: str) -> str:
        """Sorted set, all of one score: pending deliveries of an endpoint with one ordering key (hashed), each behind its place in the log.

        One of them is in the mailbox, the retries or the leases; as long as it has not ended the others wait.
        """
        return f"{self.prefix}:line:{endpoint}:{key}"

    @property
    def due(self) -> str:
        """Sorted set: endpoints by when something of their mailbox can next be claimed (ms), those that are full behind all times.

        Paused, disabled and idle ones are not in it. It never says later than it is; too early is mended at the next look.
        """
        return f"{self.prefix}:due"

    @property
    def due_retries(self) -> str:
        """Sorted set: the same of their retries."""
        return f"{self.prefix}:due:retries"

    @property
    def expiring(self) -> str:
        """Sorted set: endpoints by when their first lease runs out (ms), or earlier."""
        return f"{self.prefix}:expiring"

    @property
    def dispatchers(self) -> str:
        """Set: ids (`Presence.id`) of those that live, and of those that died holding something."""
        return f"{self.prefix}:dispatchers"

    def alive(self, dispatcher: str) -> str:
        """Text that goes when a dispatcher falls silent."""
        return f"{self.prefix}:alive:{dispatcher}"

    def held(self, dispatcher: str) -> str:
        """Sorted set: tokens of a dispatcher's claims of the last minute, by when (ms)."""
        return f"{self.prefix}:held:{dispatcher}"

    @property
    def wake(self) -> str:
        """List: at most one marker, taken by the dispatcher that wakes up."""
        return f"{self.prefix}:wake"

    @property
    def outbox(self) -> str:
        """List: events (JSON) of this package that are still to be published."""
        return f"{self.prefix}:outbox"

    def replay(self, replay: str) -> str:
        """Hash: `asked` (JSON), `position`, `status`, … of `replays.ReplayRecord`."""
        return f"{self.prefix}:replay:{replay}"

    @property
    def replays(self) -> str:
        """Sorted set: replay ids by when they began (ms)."""
        return f"{self.prefix}:replays"

    @property
    def replaying(self) -> str:
        """Hash: endpoint → the replay that is running for it."""
        return f"{self.prefix}:replays:running"

    def stats(self, endpoint: str) -> str:
        """Hash: what was counted of an endpoint's attempts; see `stats.lua`."""
        return f"{self.prefix}:stats:{endpoint}"

    @property
    def shown(self) -> str:
        """Sorted set: endpoints that have metrics of their own, by when something was last counted of them (ms)."""
        return f"{self.prefix}:shown"

    @property
    def deleted(self) -> str:
        """Sorted set: the endpoints deleted last, by when (ms)."""
        return f"{self.prefix}:deleted"

    @property
    def orphans(self) -> str:
        """Set: deleted endpoints whose pending deliveries are still to be marked skipped."""
        return f"{self.prefix}:orphans"
