"""A run comes back from the store as it was, whatever it holds."""

from dataclasses import fields

import orjson

from pipeline.workflows.codec import decode, encode
from pipeline.workflows.model import Run, RunStatus, Step, StepStatus

STEP = Step(
    status=StepStatus.WAITING, n=2, job_id="j", attempts=3, result={"a": [1, None]}, error="e", reason="r", started_at=4, finished_at=5, waited=True
)
RUN = Run(
    id="run_1", workflow="w", version=2, digest="d", user_id="u", input={"documentId": "ü"}, created_at=1, status=RunStatus.FAILED,
    steps={"one": STEP, "two": Step()}, output=[1.5], error="e", finished_at=6, generation=7,
)  # fmt: skip


def test_everything_that_a_run_holds_is_kept() -> None:
    assert decode(encode(RUN)) == RUN


def test_of_a_step_only_what_happened_to_it_is_kept() -> None:
    assert orjson.loads(encode(RUN))["steps"]["two"] == {"status": "pending"}


def test_a_run_of_before_is_read() -> None:
    """Until 2026-11-26 all fields of a step were kept, those that are empty too."""
    state = orjson.loads(encode(RUN))
    state["steps"]["two"] = {field.name: getattr(Step(), field.name) for field in fields(Step)}
    assert decode(orjson.dumps(state)) == RUN


def test_no_field_is_forgotten() -> None:
    state = orjson.loads(encode(RUN))
    assert list(state) == [field.name for field in fields(Run)]
    assert list(state["steps"]["one"]) == [field.name for field in fields(Step)]
