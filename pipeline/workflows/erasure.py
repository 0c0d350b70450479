"""What a run keeps of a document that is erased: that it was done, to what end, and nothing that the document said."""

from dataclasses import replace
from typing import Any

from pipeline.workflows.model import Run

_OF_THE_CONTENT = ("findings", "metadata")
"""Fields of results, however deep, that quote or describe what a document says."""


def scrubbed(run: Run) -> Run:
    """The run without what its steps' results and its output hold of the document's content."""
    steps = {id: replace(step, result=_without(step.result)) for id, step in run.steps.items()}
    return replace(run, steps=steps, output=_without(run.output))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items() if name not in _OF_THE_CONTENT or not isinstance(item, dict | list)}
    if isinstance(value, list):
        return [_without(item) for item in value]
    return value
