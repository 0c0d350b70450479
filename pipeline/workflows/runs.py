"""Runs as the API sees them: start, show, list, timeline, cancel, retry."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import Conflict, InvalidInput, NotFound, Unavailable
from pipeline.ids import new_id
from pipeline.jobs.calls import now_ms
from pipeline.jobs.queues import LOST_REPLY_SECONDS, Queues
from pipeline.store.connection import Store
from pipeline.store.event import Event
from pipeline.store.idempotency import JOB, SECONDS, Answer, Claim, parse
from pipeline.store.keys import Keys
from pipeline.store.memory import REFUSE_NEW, Memory
from pipeline.units import iso
from pipeline.workflows import machine
from pipeline.workflows.codec import public
from pipeline.workflows.definition import Definition, check_input
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.erasure import scrubbed
from pipeline.workflows.model import CancelRequested, Outcome, RetryRequested, Run, StepStatus
from pipeline.workflows.transitions import Transitions

_NUMBER = re.compile(r"[0-9]{1,15}")
"""What a cursor counts with; more digits, or those of other scripts, the store would not take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    run_id: str
    workflow: str
    status: str
    job_id: str | None
    """The job that triggered the run, where one did."""
    replay: Answer | None = None
    """The first answer, if this idempotency key was used before; then nothing was started and the other fields are empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    items: list[dict[str, Any]]
    next_cursor: str | None


class Runs:
    def __init__(self, redis: Store, keys: Keys, queues: Queues, definitions: Definitions, transitions: Transitions) -> None:
        self._redis = redis
        self._keys = keys
        self._queues = queues
        self._definitions = definitions
        self._transitions = transitions
        self._memory = Memory(redis)

    @property
    def definitions(self) -> dict[str, Definition]:
        return self._definitions.current

    def trigger_for(self, queue: str) -> Definition | None:
        return self._definitions.triggered_by(queue)

    async def start(
        self, workflow: str, input: Any, *, user_id: str | None, trigger: str | None = None, claim: Claim | None = None, answer: Answer | None = None
    ) -> Started:
        """Start a run in one transaction; with a `claim`, once per idempotency key, whose `answer` (with RUN, STATUS and JOB
        standing for what is not known yet) is kept beside it.

        `trigger` names the queue whose job started it: the job of that step takes BullMQ's counter as its id.
        Raises NotFound, InvalidInput with every fault of the input, Unavailable when the store is nearly full,
        Conflict if the key was used for another request.
        """
        definition = self._definitions.named(workflow)
        faults = check_input(definition, input)
        if faults:
            raise InvalidInput(f"the input does not fit workflow {workflow!r}", faults=faults)
        share = await self._memory.share()
        if share >= REFUSE_NEW:
            if claim and (earlier := await self._redis.get(claim.key)):
                # What was accepted before the store was full stays accepted.
                return Started(run_id="", workflow=workflow, status="", job_id=None, replay=parse(earlier, claim))
            raise Unavailable(f"the store is {share:.0%} full: new runs are refused until running ones end", retry_after=10)
        now = now_ms()
        run_id = new_id("run", now)
        trigger_step = definition.trigger_step(trigger) if trigger else None
        decision = machine.start(definition, run_id=run_id, user_id=user_id, input=input, now=now, trigger_step=trigger_step)
        if trigger_step and not any(job.step == trigger_step for job in decision.dispatches):
            # The caller asked for a job; a run that fails before it has one would be no answer.
            raise InvalidInput(f"the job cannot become step {trigger_step!r} of workflow {workflow!r}: {decision.run.steps[trigger_step].error}")
        status = decision.run.status.value
        kept = claim or Claim(key=f"{self._keys.prefix}:once:{uuid.uuid4().hex}", fingerprint="")
        own = Answer(status=202, headers={}, body=orjson.dumps({"runId": run_id, "jobId": JOB}).decode())
        filled = answer.filled(run=run_id, status=status) if claim and answer else own
        begun = await self._transitions.begin(definition, decision, claim=kept, answer=filled, seconds=SECONDS if claim else LOST_REPLY_SECONDS)
        job_id = begun.job_id or None
        if begun.earlier:
            first = parse(begun.earlier, kept)
            if claim:
                return Started(run_id="", workflow=workflow, status="", job_id=None, replay=first)
            job_id = orjson.loads(first.body)["jobId"] or None
        return Started(run_id=run_id, workflow=workflow, status=status, job_id=job_id)

    async def get(self, run_id: str) -> Run | None:
        loaded = await self._transitions.load(run_id)
        return loaded[0] if loaded else None

    async def view(self, run_id: str) -> dict[str, Any] | None:
        """The run as the API shows it, with the progress of its running steps."""
        run = await self.get(run_id)
        if run is None:
            return None
        shown = public(run)
        definition = await self._definitions.pinned(run.digest)
        for id, step in run.steps.items():
            if step.status == StepStatus.RUNNING and step.job_id:
                shown["steps"][id] |= await self._live(definition.steps[id].queue, step.job_id)
        return shown

    async def _live(self, queue: str, job_id: str) -> dict[str, Any]:
        """What only the job's own hash knows while it is under way."""
        progress, made, processed = await self._redis.hmget(self._queues.keys(queue).key(job_id), "progress", "atm", "processedOn")
        if processed is None:
            return {"status": StepStatus.PENDING.value}
        return {"progress": orjson.loads(progress or "0"), "attempts": int(made or 0) + 1, "startedAt": iso(int(processed))}

    async def list(
        self, *, status: str | None = None, workflow: str | None = None, user_id: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """Newest first. Raises InvalidInput for a cursor that is not one of this list's."""
        index = self._keys.runs()
        if user_id:
            index = self._keys.runs("user", user_id)
        elif status:
            index = self._keys.runs("status", status)
        elif workflow:
            index = self._keys.runs("workflow", workflow)
        found: list[Run] = []
        position = _position(cursor)
        while True:
            ids, position = await self._older(index, position, limit)
            for run in await self._transitions.load_many(ids):
                if (not status or run.status == status) and (not workflow or run.workflow == workflow) and (not user_id or run.user_id == user_id):
                    if len(found) == limit:
                        last = found[-1]
                        return Page(items=[public(run) for run in found], next_cursor=f"{last.created_at}.{last.id}")
                    found.append(run)
            if not ids:
                return Page(items=[public(run) for run in found], next_cursor=None)

    async def _older(self, index: str, position: tuple[float, str], limit: int) -> "tuple[Sequence[str], tuple[float, str]]":
        """The next ids below a position (time, id); runs of one millisecond lie in the order of their ids."""
        score, last = position
        offset = 0
        ids: Sequence[tuple[str, float]] = ()
        while not ids:
            top: Any = "+inf" if score == float("inf") else score
            rows = await self._redis.zrange(index, top, "-inf", byscore=True, desc=True, offset=offset, num=limit + 1, withscores=True)
            ids = [(run_id, at) for run_id, at in rows if (at, run_id) < (score, last)]
            offset += len(rows)
            if not rows:
                return [], position
        return [run_id for run_id, _ in ids], (ids[-1][1], ids[-1][0])

    async def timeline(self, run_id: str, *, cursor: str | None = None, limit: int = 200) -> Page:
        """What happened to a run, oldest first: `{id, type, timestamp, data}`."""
        if cursor and not _NUMBER.fullmatch(cursor):
            raise InvalidInput(f"{cursor!r} is not a cursor of this list; use its nextCursor")
        first = int(cursor or 0)
        rows = await self._redis.lrange(self._keys.timeline(run_id), first, first + limit)
        more = len(rows) > limit
        return Page(items=[orjson.loads(row) for row in rows[:limit]], next_cursor=str(first + limit) if more else None)

    async def of_document(self, document_id: str) -> Sequence[Run]:
        """The runs whose input names the document."""
        return await self._transitions.load_many(await self._redis.zrange(self._keys.runs("document", document_id), 0, -1))

    async def working(self, run: Run) -> bool:
        """Whether a job of the run may still write: it is under way, or was cancelled while a worker had its job and has it still."""
        if run.finished_at is None:
            return True
        definition = await self._definitions.pinned(run.digest)
        locks = [f"{self._queues.keys(definition.steps[id].queue).key(step.job_id)}:lock" for id, step in run.steps.items() if step.job_id]
        return bool(locks and await self._redis.exists(*locks))

    async def erased(self, run_id: str, event: Event) -> None:
        """Drop what a run keeps of its document's content, and put the event that says so into its timeline, once."""
        last = await self._redis.lindex(self._keys.timeline(run_id), -1)
        if last and orjson.loads(last)["id"] == event.id:
            # An erasure that was cut off, and is done again, came as far as this.
            return
        await self._transitions.tell(run_id, event, scrubbed)

    async def cancel(self, run_id: str, by: str) -> dict[str, Any]:
        """Raises NotFound; Conflict if the run has ended otherwise (cancelling twice is no error)."""
        return await self._ask(run_id, CancelRequested(by=by), "cancelled")

    async def retry(self, run_id: str, by: str) -> dict[str, Any]:
        """Run the failed steps, and what they blocked, again. Raises NotFound; Conflict unless the run failed or was cancelled."""
        return await self._ask(run_id, RetryRequested(by=by), None)

    async def _ask(self, run_id: str, outcome: Outcome, already: str | None) -> dict[str, Any]:
        moved = await self._transitions.apply(run_id, outcome)
        if moved:
            return public(moved)
        run = await self.get(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        if run.status.value == already:
            return public(run)
        verb = "cancelled" if isinstance(outcome, CancelRequested) else "retried"
        raise Conflict(f"run {run_id} is {run.status.value} and cannot be {verb}")


def _position(cursor: str | None) -> tuple[float, str]:
    if not cursor:
        return float("inf"), ""
    time, _, run_id = cursor.partition(".")
    if not _NUMBER.fullmatch(time) or not run_id:
        raise InvalidInput(f"{cursor!r} is not a cursor of this list; use its nextCursor")
    return float(time), run_id
