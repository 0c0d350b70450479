"""Every Redis key that the pipeline owns, built in one place (BullMQ's own keys are in `jobs/queues.py`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds keys below one prefix (`redis.prefix`, default `hookline`)."""

    prefix: str = "hookline"

    @property
    def log(self) -> str:
        """Stream: the event log."""
        return f"{self.prefix}:log"

    def run(self, run_id: str) -> str:
        """Hash: `v` (version of the transition), `state` (JSON), `job` (id of the trigger's job, where there is one)."""
        return f"{self.prefix}:run:{run_id}"

    def timeline(self, run_id: str) -> str:
        """List of event documents (JSON), oldest first."""
        return f"{self.prefix}:run:{run_id}:timeline"

    def runs(self, index: str = "all", value: str = "") -> str:
        """Sorted set of run ids by creation time: all of them, or those with one status, workflow, user or document."""
        return f"{self.prefix}:runs:{index}:{value}" if value else f"{self.prefix}:runs:{index}"

    @property
    def timers(self) -> str:
        """Sorted set: `<run>|<step>|<n>` or `<run>||` by the time (ms) it is due."""
        return f"{self.prefix}:timers"

    def definition(self, digest: str) -> str:
        """String: a workflow's definition as JSON, by its content hash."""
        return f"{self.prefix}:definition:{digest}"

    def idempotency(self, principal: str, route: str, key: str) -> str:
        """String: the answer to a request that carried this `Idempotency-Key`."""
        return f"{self.prefix}:idempotency:{principal}:{route}:{key}"

    def document(self, document_id: str) -> str:
        """String: `{userId, filename, sha256, upload?, erasing?}` of an uploaded document, as JSON; documents stored by others have none."""
        return f"{self.prefix}:document:{document_id}"

    def done(self, queue: str, job_id: str = "", attempts: str = "") -> str:
        """String: the end of this attempt, by a foreign worker, is in the event log. Without job and attempts: how those of a queue begin."""
        return f"{self.prefix}:done:{queue}:{job_id}:{attempts}" if job_id else f"{self.prefix}:done:{queue}:"

    def bridge(self, queue: str) -> str:
        """Hash of an external queue: `since` when it is followed, `stream` (position in its events), `completed` and `failed` (ms looked through)."""
        return f"{self.prefix}:bridge:{queue}"

    def kept(self, queue: str, state: str) -> str:
        """List of the ended jobs of an external queue that belong to no run and are kept, newest first."""
        return f"{self.prefix}:bridge:{queue}:kept:{state}"

    def removing(self, document_id: str) -> str:
        """String: who is removing the document just now."""
        return f"{self.prefix}:document:{document_id}:removing"

    @property
    def uploads(self) -> str:
        """Sorted set: `<documentId> <random>` of each upload under way, by when it was last heard of (ms)."""
        return f"{self.prefix}:uploads"

    @property
    def event_types(self) -> str:
        """Hash: type → `{description, schema, example, updated}` (JSON) of each event type that was registered."""
        return f"{self.prefix}:event-types"

    @property
    def webhooks(self) -> str:
        """Prefix handed to the `webhooks` package, which owns the keys below it."""
        return f"{self.prefix}:webhooks"
