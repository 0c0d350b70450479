"""A workflow's definition: from YAML to a checked, frozen value with a content hash, to which runs are pinned."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import orjson

from pipeline.config import Config
from pipeline.errors import ConfigError, Fault
from pipeline.validation import check
from pipeline.workflows import expressions, inputs, order
from pipeline.workflows.expressions import Expression, ExpressionError
from pipeline.workflows.written import DEFAULT_RUN_ON, RunOn, Step, Workflow
from pipeline.yamlsource import Path, Source, suggestion

STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDefinition:
    """One step, with every default filled in."""

    id: str
    queue: str
    job: str
    """The job's name, which says which of the queue's processors does it."""
    data: Any
    """The job's data, its expressions not yet evaluated (`with`)."""
    needs: tuple[str, ...] = ()
    condition: str | None = None
    """The `if`; None: always true."""
    run_on: tuple[RunOn, ...] = DEFAULT_RUN_ON
    """How its needs must have ended for it to run."""
    continue_on_error: bool = False
    attempts: int | None = None
    """None: the queue's own, as with the backoff."""
    backoff: dict[str, Any] | None = None
    """BullMQ's `{type, delay}`, the delay in ms."""
    timeout: int | None = None
    """ms from when its job is added, over all attempts."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A workflow that passed every check."""

    name: str
    version: int
    input_schema: dict[str, Any]
    timeout: int | None
    """ms that a run may take."""
    triggers: tuple[str, ...]
    """Queues whose posted jobs start a run, as its step of that queue without needs."""
    steps: dict[str, StepDefinition]
    """In the order written, which is the order in which simultaneous ones are dispatched."""
    output: Any = None
    """The run's output, its expressions not yet evaluated."""

    def trigger_step(self, queue: str) -> str:
        """The step that a job posted to this trigger's queue becomes."""
        return next(step.id for step in self.steps.values() if step.queue == queue and not step.needs)

    @cached_property
    def in_order(self) -> tuple[StepDefinition, ...]:
        """The steps so that each comes after those it needs, and otherwise as written."""
        return tuple(self.steps[id] for id in order.sorted_by_needs({id: step.needs for id, step in self.steps.items()}))

    @cached_property
    def digest(self) -> str:
        """Hash of the content: two definitions with the same digest behave the same."""
        return hashlib.blake2b(orjson.dumps(self._content(), option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()

    def to_json(self) -> str:
        """The form in which it is stored, by its digest, for the runs pinned to it."""
        return orjson.dumps(self._content()).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The definition that `to_json` wrote."""
        content = orjson.loads(text)
        steps = content.pop("steps")
        return cls(
            **{**content, "triggers": tuple(content["triggers"])},
            steps={step["id"]: StepDefinition(**{**step, "needs": tuple(step["needs"]), "run_on": tuple(step["run_on"])}) for step in steps},
        )

    def _content(self) -> dict[str, Any]:
        # The steps as a list: with sorted keys their order, which is part of the behaviour, would not count.
        return {
            "name": self.name,
            "version": self.version,
            "input_schema": self.input_schema,
            "timeout": self.timeout,
            "triggers": list(self.triggers),
            "steps": [{name: getattr(step, name) for name in StepDefinition.__dataclass_fields__} for step in self.steps.values()],
            "output": self.output,
        }


def schema() -> dict[str, Any]:
    """JSON Schema of one workflow, for editors."""
    return Workflow.model_json_schema()


def compile_all(config: Config, source: Source | None = None) -> dict[str, Definition]:
    """Check and compile every workflow of the configuration.

    `source` is config.yaml as parsed, for line and column. Raises one ConfigError with every fault found.
    """
    source = source or Source(file="config.yaml", data={})
    compilers = [_Compiler(name, written, config, source) for name, written in config.workflows.items()]
    definitions = {compiler.name: definition for compiler in compilers if (definition := compiler.compile())}
    faults = [fault for compiler in compilers for fault in compiler.faults]
    faults += _shared_triggers(definitions, source)
    if faults:
        raise ConfigError("the workflows cannot be used", file=source.file, faults=tuple(faults))
    return definitions


def check_input(definition: Definition, data: Any) -> tuple[Fault, ...]:
    """What is wrong with the input of a run, by the workflow's JSON Schema: at most MAX_INPUT_FAULTS faults."""
    return inputs.faults(definition.input_schema, data)


def graph(definition: Definition) -> dict[str, Any]:
    """The steps and the edges between them, as the API and the dashboard show them."""
    return {
        "steps": [{"id": step.id, "queue": step.queue, "job": step.job, "needs": list(step.needs)} for step in definition.steps.values()],
        "edges": [{"from": need, "to": step.id} for step in definition.steps.values() for need in step.needs],
    }


def _shared_triggers(definitions: Mapping[str, Definition], source: Source) -> Iterator[Fault]:
    owner: dict[str, str] = {}
    for definition in definitions.values():
        for index, queue in enumerate(definition.triggers):
            first = owner.setdefault(queue, definition.name)
            if first != definition.name:
                path = ("workflows", definition.name, "triggers", index, "queue")
                yield source.fault(path, f"queue {queue!r} already starts workflow {first!r}; a posted job becomes the step of one run only")


class _Compiler:
    """Turns one workflow as written into a Definition, collecting faults instead of stopping at the first."""

    def __init__(self, name: str, written: Any, config: Config, source: Source) -> None:
        self.name = name
        self.faults: list[Fault] = []
        self._raw = written
        self._config = config
        self._source = source
        self._path: Path = ("workflows", name)

    def compile(self) -> Definition | None:
        if not NAME.fullmatch(self.name):
            self._fault((), f"{self.name!r} cannot be a workflow's name; use letters, digits, '.', '_' and '-' (at most 64)", key=True)
        if not isinstance(self._raw, Mapping):
            self._fault((), "a workflow should be a mapping (version, triggers, input, timeout, steps, output)")
            return None
        self._check_ids()
        written, faults = check(Workflow, self._raw, self._source, self._path)
        self.faults += faults
        if written is None:
            return None
        self._check_schema(written.input)
        steps = {id: self._step(id, step) for id, step in written.steps.items()}
        self._check_needs(steps)
        self._check_expressions(steps, written.output)
        triggers = tuple(self._triggers(written, steps))
        if self.faults:
            return None
        return Definition(
            name=self.name,
            version=written.version,
            input_schema=written.input,
            timeout=written.timeout,
            triggers=triggers,
            steps=steps,
            output=written.output,
        )

    def _fault(self, path: Path, message: str, *, key: bool = False, offset: int = 0) -> None:
        self.faults.append(self._source.fault((*self._path, *path), message, key=key, offset=offset))

    def _check_ids(self) -> None:
        steps = self._raw.get("steps")
        for id in steps if isinstance(steps, Mapping) else ():
            if not STEP_ID.fullmatch(id):
                message = f"{id!r} cannot be a step's id; begin with a letter, then letters, digits and '_' (at most 64), for example"
                self._fault(("steps", id), f"{message} {_legal(id)!r}", key=True)

    def _check_schema(self, written: dict[str, Any]) -> None:
        for path, message in inputs.mistakes(written):
            self._fault(("input", *path), message)

    def _step(self, id: str, written: Step) -> StepDefinition:
        retry, run_on = written.retry, written.run_on
        if written.timeout == 0:
            self._fault(("steps", id, "timeout"), "a timeout of 0 would fail the step at once; leave it out for none")
        return StepDefinition(
            id=id,
            queue=written.queue,
            job=self._job(id, written),
            data=written.with_,
            needs=tuple([written.needs] if isinstance(written.needs, str) else written.needs),
            condition=None if written.if_ is None or written.if_ is True else "false" if written.if_ is False else written.if_,
            run_on=(run_on,) if isinstance(run_on, str) else tuple(run_on),
            continue_on_error=written.continue_on_error,
            attempts=retry.attempts,
            backoff={"type": retry.backoff.type, "delay": retry.backoff.delay} if retry.backoff else None,
            timeout=written.timeout,
        )

    def _job(self, id: str, written: Step) -> str:
        queue = self._config.queues.get(written.queue)
        if queue is None:
            self._fault(("steps", id, "queue"), f"there is no queue {written.queue!r}{suggestion(written.queue, self._config.queues)}")
            return written.job or ""
        names = list(queue.processors)
        if not names:
            self._fault(
                ("steps", id, "queue"),
                f"queue {written.queue!r} has no processors; declare queues.{written.queue}.processors (job name: path, URL or external)",
            )
        elif written.job is None and len(names) > 1:
            self._fault(("steps", id), f"'job' is required: queue {written.queue!r} has the processors {', '.join(names)}", key=True)
        elif written.job is not None and written.job not in names:
            self._fault(("steps", id, "job"), f"queue {written.queue!r} has no processor for job {written.job!r}{suggestion(written.job, names)}")
        return written.job or (names[0] if names else "")

    def _check_needs(self, steps: dict[str, StepDefinition]) -> None:
        for step in steps.values():
            for index, need in enumerate(step.needs):
                path: Path = (
                    ("steps", step.id, "needs", index) if isinstance(self._raw["steps"][step.id].get("needs"), list) else ("steps", step.id, "needs")
                )
                if need == step.id:
                    self._fault(path, "a step cannot need itself")
                elif need not in steps:
                    self._fault(path, f"there is no step {need!r}{suggestion(need, (id for id in steps if id != step.id))}")
                elif need in step.needs[:index]:
                    self._fault(path, f"{need!r} is named twice")
            if not step.run_on:
                self._fault(("steps", step.id, "run_on"), "name at least one of completed, skipped, failed; or always")
            elif "always" in step.run_on and len(step.run_on) > 1:
                self._fault(("steps", step.id, "run_on"), "'always' stands alone: it includes the others")
            elif not step.needs and "run_on" in self._raw["steps"][step.id]:
                self._fault(("steps", step.id, "run_on"), "has no effect on a step without needs", key=True)
        if cycle := order.cycle({step.id: step.needs for step in steps.values()}):
            self._fault(("steps", cycle[0], "needs"), f"a cycle: {' → '.join(cycle)} (each needs the next)")

    def _check_expressions(self, steps: dict[str, StepDefinition], output: Any) -> None:
        needs = {step.id: step.needs for step in steps.values()}
        for step in steps.values():
            reachable = order.ancestors(step.id, needs)
            where = f"the needs of {step.id!r}"
            self._check_texts(step.data, ("steps", step.id, "with"), steps, reachable, where)
            if step.condition is not None:
                self._check_text(step.condition, ("steps", step.id, "if"), steps, reachable, where, condition=True)
        self._check_texts(output, ("output",), steps, set(steps), "the steps")

    def _check_texts(self, value: Any, path: Path, steps: dict[str, StepDefinition], reachable: set[str], where: str) -> None:
        for at, text in expressions.texts(value):
            self._check_text(text, (*path, *at), steps, reachable, where)
        for at in expressions.keys(value):
            self._fault((*path, *at), "an expression in a key is not evaluated; write the key out", key=True)

    def _check_text(
        self, text: str, path: Path, steps: dict[str, StepDefinition], reachable: set[str], where: str, *, condition: bool = False
    ) -> None:
        try:
            for part in (expressions.condition(text),) if condition else expressions.template(text):
                if isinstance(part, Expression):
                    expressions.check_steps(part, steps=steps, reachable=reachable, where=where)
        except ExpressionError as error:
            self._fault(path, error.message, offset=error.offset)

    def _triggers(self, written: Workflow, steps: dict[str, StepDefinition]) -> Iterator[str]:
        seen: set[str] = set()
        for index, trigger in enumerate(written.triggers):
            queue, path = trigger.queue, ("triggers", index, "queue")
            first = [step for step in steps.values() if step.queue == queue and not step.needs]
            becomes = f"a job posted to {queue!r} becomes the step of that queue without needs"
            if queue in seen:
                self._fault(path, f"queue {queue!r} is named twice")
            elif queue not in self._config.queues:
                self._fault(path, f"there is no queue {queue!r}{suggestion(queue, self._config.queues)}")
            elif len(first) != 1:
                self._fault(path, f"{becomes}; {' and '.join(step.id for step in first)} both are" if first else f"{becomes}; there is none")
            elif first[0].condition is not None:
                self._fault(path, f"{becomes}, but {first[0].id!r} has an `if`: the job is posted already, and cannot be skipped")
            else:
                yield queue
            seen.add(queue)


def _legal(id: str) -> str:
    legal = re.sub(r"[^A-Za-z0-9_]", "_", id)[:60]
    return legal if STEP_ID.fullmatch(legal) else f"s_{legal}"
