"""Transitions of runs, each committed whole: load, decide, commit, and again if somebody else moved the run meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from redis.exceptions import ResponseError

from pipeline.jobs import calls
from pipeline.jobs.calls import now_ms
from pipeline.jobs.model import Origin
from pipeline.jobs.plain import ADD, Plain
from pipeline.jobs.queues import Queues
from pipeline.store.connection import STORE_ERRORS, Store
from pipeline.store.event import Event
from pipeline.store.idempotency import Answer, Claim, record
from pipeline.store.keys import Keys
from pipeline.store.scripts import Argument, Call, composed, lua, pack, pack_call
from pipeline.units import iso
from pipeline.workflows import machine
from pipeline.workflows.codec import decode, encode
from pipeline.workflows.commits import Commit, Commits
from pipeline.workflows.definition import Definition
from pipeline.workflows.definitions import Definitions
from pipeline.workflows.model import Decision, Dispatch, Outcome, Run, Timer
from pipeline.workflows.moved import Moved

START = composed(ADD + lua("pipeline.workflows", "start.lua"), "addStandardJob")
_DOCUMENT_ID = 128
"""Characters; an input's documentId that is longer cannot be a document's."""
JOB_ENDS = ("job.completed", "job.failed")
IGNORE = composed(lua("pipeline.workflows", "ignore.lua"), "removeJob")


@dataclass(kw_only=True, slots=True)
class Entry:
    """An entry of the log that a transition acknowledges when it is committed."""

    group: str
    event: Event


News = tuple[str, Outcome, Entry]
"""A run's id, what happened to it, and the entry that tells it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """What the start transaction answered."""

    job_id: str
    """Of the trigger's job; empty where no queue triggered the run."""
    earlier: str | None
    """The idempotency record of the first time, if there was one: then nothing was started."""


class Transitions:
    """Reads and moves runs."""

    def __init__(self, redis: Store, keys: Keys, queues: Queues, definitions: Definitions) -> None:
        self._redis = redis
        self._keys = keys
        self._queues = queues
        self._definitions = definitions
        self._commits = Commits(redis, keys)
        self._moved = Moved()

    async def load(self, run_id: str) -> tuple[Run, str] | None:
        """A run and the version of its last transition."""
        fields = await self._redis.hgetall(self._keys.run(run_id))
        return _loaded(fields) if fields else None

    async def load_many(self, run_ids: Sequence[str]) -> list[Run]:
        """Those of the runs that exist, in order."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for run_id in run_ids:
                pipe.hgetall(self._keys.run(run_id))
            return [_loaded(fields)[0] for fields in await pipe.execute() if fields]

    async def begin(self, definition: Definition, decision: Decision, *, claim: Claim, answer: Answer, seconds: int) -> Begun:
        """The start transaction."""
        run = decision.run
        what = {
            "run": run.id,
            "jobs": [[*pack_call(self._add(run, job)), "" if job.job_id else "1"] for job in decision.dispatches],
            "events": [event.fields() for event in decision.events],
            "timeline": [_timeline(event) for event in decision.events],
            "timers": [[str(timer.due), _member(run.id, timer)] for timer in decision.timers],
            "indexes": self._indexes(run),
        }
        keys = [
            claim.key,
            self._keys.run(run.id),
            self._keys.log,
            self._keys.timeline(run.id),
            self._keys.timers,
            self._keys.definition(run.digest),
        ]
        args: list[Argument] = [record(claim, answer), seconds, encode(run), definition.to_json(), pack(what), run.created_at]
        started, detail = await START(self._redis, keys, args)
        return Begun(job_id=str(detail), earlier=None) if started else Begun(job_id="", earlier=str(detail))

    async def apply(self, run_id: str, outcome: Outcome, *, entry: Entry | None = None, job: dict[str, Any] | None = None) -> Run | None:
        """Tell a run what happened to it and commit what follows; None if nothing does (then the entry is acknowledged alone).

        The job that has ended (`queue` and `jobId` of the entry, or of `job` where there is none) is removed with that if its queue is
        external: BullMQ was told to leave it to us.
        Raises what the machine raises, and NotFound if the run's definition is gone.
        """
        sent: Run | None = None
        known = self._moved.take(run_id)
        while True:
            loaded = known or await self.load(run_id)
            decision = None
            if loaded:
                run, version = loaded
                if run == sent:
                    # Refused the second time because it was applied the first time, and that reply was lost.
                    return run
                definition = await self._definitions.pinned(run.digest)
                decision = machine.advance(definition, run, outcome, now_ms())
            if decision is None and known:
                # No news to the state as we left it; to what others made of it since it may be.
                known = None
                continue
            ended = self._ended(entry.event.data if entry and entry.event.type in JOB_ENDS else job or {})
            if decision is None:
                if entry and ended:
                    await IGNORE(self._redis, [self._keys.log], [entry.group, entry.event.cursor, pack(pack_call(ended))])
                elif entry:
                    await self._redis.xack(self._keys.log, entry.group, entry.event.cursor)
                return None
            sent = decision.run
            if await self._commit(self._prepared(run, version, decision, entry, ended), entry):
                return sent
            known = None

    async def apply_all(self, news: Sequence[News]) -> list[Exception | None]:
        """As `apply` for each of several runs, no two alike, whose entries are of one group; what is usual goes to the store in one script.

        Returns what `apply` would have raised for each. Raises the store's errors.
        """
        found = await self._found([run_id for run_id, _, _ in news])
        now = now_ms()
        prepared = [self._usual(known, outcome, entry, now) for known, (_, outcome, entry) in zip(found, news, strict=True)]
        commits = [commit for commit in prepared if commit]
        answers = iter(await self._send(commits, news[0][2].group) if commits else ())
        said = [next(answers) if commit else False for commit in prepared]
        again = [number for number, moved in enumerate(said) if moved is False]
        errors = await asyncio.gather(*(self._applied(news[number]) for number in again))
        failed = dict(zip(again, errors, strict=True))
        return [failed.get(number) if moved is False else moved if isinstance(moved, Exception) else None for number, moved in enumerate(said)]

    async def _found(self, run_ids: Sequence[str]) -> list[tuple[Run, str] | None]:
        """Each run and its version, as we left it or as the store has it; None for one that is gone, or cannot be read."""
        found = [self._moved.take(run_id) for run_id in run_ids]
        missing = [number for number, known in enumerate(found) if known is None]
        if missing:
            async with self._redis.pipeline(transaction=False) as pipe:
                for number in missing:
                    pipe.hgetall(self._keys.run(run_ids[number]))
                for number, fields in zip(missing, await pipe.execute(raise_on_error=False), strict=True):
                    found[number] = _loaded(fields) if isinstance(fields, dict) and fields else None
        return found

    def _usual(self, known: tuple[Run, str] | None, outcome: Outcome, entry: Entry, now: int) -> Commit | None:
        """The commit of a transition for which nothing more has to be known; None where `apply` has to see to it."""
        if known is None or (definition := self._definitions.at_hand(known[0].digest)) is None:
            return None
        try:
            decision = machine.advance(definition, known[0], outcome, now)
            ended = self._ended(entry.event.data if entry.event.type in JOB_ENDS else {})
            return self._prepared(*known, decision, entry, ended) if decision else None
        except Exception:
            # `apply` meets it again, and tells.
            return None

    async def _applied(self, news: News) -> Exception | None:
        run_id, outcome, entry = news
        try:
            await self.apply(run_id, outcome, entry=entry)
        except STORE_ERRORS:
            raise
        except Exception as error:
            return error
        return None

    async def tell(self, run_id: str, event: Event, change: Callable[[Run], Run]) -> None:
        """Change what a run keeps, and put into its timeline why; nothing for a run that is gone."""
        while loaded := await self.load(run_id):
            run, version = loaded
            entry = Entry(group="", event=event)
            if await self._commit(self._prepared(run, version, Decision(run=change(run)), entry), entry):
                return

    def _ended(self, job: dict[str, Any]) -> Call | None:
        queue = job.get("queue")
        return calls.remove_job(self._queues.keys(queue), job_id=job["jobId"]) if queue in self._queues.external else None

    async def _commit(self, commit: Commit, entry: Entry | None) -> bool:
        (moved,) = await self._send([commit], entry.group if entry else "")
        if isinstance(moved, Exception):
            raise moved
        return moved

    async def _send(self, commits: Sequence[Commit], group: str) -> list[bool | ResponseError]:
        answers = await self._commits.send(commits, group=group)
        for commit, moved in zip(commits, answers, strict=True):
            if moved is True and not commit.run.status.terminal:
                self._moved.put(commit.run, str(int(commit.version) + 1), len(commit.state))
        return answers

    def _prepared(self, before: Run, version: str, decision: Decision, entry: Entry | None, ended: Call | None = None) -> Commit:
        run = decision.run
        told = [entry.event, *decision.events] if entry else decision.events
        what: dict[str, Any] = {"run": run.id, "timeline": [_timeline(event) for event in told]}
        if decision.dispatches:
            what["jobs"] = [self._plain(run, job) for job in decision.dispatches]
        if decision.events:
            what["events"] = [event.fields() for event in decision.events]
        if decision.timers:
            what["timers"] = [(str(timer.due), _member(run.id, timer)) for timer in decision.timers]
        if decision.timers_over:
            what["over"] = [_member(run.id, timer) for timer in decision.timers_over]
        if decision.cancellations:
            what["cancel"] = [self._cancel(cancel.queue, cancel.job_id, cancel.reason) for cancel in decision.cancellations]
        if ended:
            what["ended"] = pack_call(ended)
        if before.status != run.status:
            what["drop"], what["add"] = (self._keys.runs("status", of.status) for of in (before, run))
            what["created"] = str(run.created_at)
        return Commit(run, version, encode(run), what, entry.event.cursor if entry and entry.group else "")

    def _origin(self, run: Run, job: Dispatch) -> Origin:
        return Origin(run=run.id, workflow=run.workflow, step=job.step, n=job.n, user=run.user_id, document=run.document_id)

    def _plain(self, run: Run, job: Dispatch) -> Plain:
        origin = self._origin(run, job)
        return self._queues.plain(job.queue, job.name, job.data, job_id=job.job_id, origin=origin, attempts=job.attempts, backoff=job.backoff)

    def _add(self, run: Run, job: Dispatch) -> Call:
        origin = self._origin(run, job)
        return self._queues.add_call(job.queue, job.name, job.data, job_id=job.job_id, origin=origin, attempts=job.attempts, backoff=job.backoff)

    def _cancel(self, queue: str, job_id: str, reason: str) -> list[Any]:
        keys = self._queues.keys(queue)
        return [keys.key(job_id), *pack_call(calls.remove_job(keys, job_id=job_id)), reason]

    def _indexes(self, run: Run) -> list[str]:
        keys = [self._keys.runs(), self._keys.runs("status", run.status), self._keys.runs("workflow", run.workflow)]
        if run.user_id:
            keys.append(self._keys.runs("user", run.user_id))
        if run.document_id and len(run.document_id) <= _DOCUMENT_ID:
            keys.append(self._keys.runs("document", run.document_id))
        return keys

    async def forget(self, run: Run) -> None:
        """Remove a run that has ended, with all that is kept of it."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for index in self._indexes(run):
                pipe.zrem(index, run.id)
            pipe.delete(self._keys.run(run.id), self._keys.timeline(run.id))
            await pipe.execute()


def _loaded(fields: dict[str, str]) -> tuple[Run, str]:
    run = decode(fields["state"])
    triggered = fields.get("job")
    if triggered:
        # The id was not known while the state was written: BullMQ's counter gave it in the same script.
        steps = {id: replace(step, job_id=triggered) if step.job_id == "" else step for id, step in run.steps.items()}
        run = replace(run, steps=steps)
    return run, fields["v"]


def _timeline(event: Event) -> bytes:
    """A run's own record of an event, which outlives the log; results stay in the run."""
    data = event.data.copy()
    data.pop("result", None)
    data.pop("steps", None)
    return orjson.dumps({"id": event.id, "type": event.type, "timestamp": iso(event.timestamp), "data": data})


def _member(run_id: str, timer: Timer) -> str:
    return f"{run_id}|{timer.step}|{timer.n}"
