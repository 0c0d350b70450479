"""The catalogue of Hookline's own event types: each example fits its schema, and each schema can be relied upon."""

import pytest
from jsonschema import Draft202012Validator

from pipeline import schemas
from pipeline.catalogue import BY_TYPE, OWN, RESERVED, EventType
from webhooks.selecting import thin


@pytest.mark.parametrize("event", OWN, ids=lambda event: event.type)
def test_an_example_fits_its_schema(event: EventType) -> None:
    assert event.type.startswith(RESERVED)
    assert event.description.endswith(".")
    assert schemas.check(event.schema) == ()
    Draft202012Validator(event.schema).validate(event.example)
    assert event.example.keys() <= event.schema["properties"].keys()
    for name in event.schema["required"]:
        without = {key: value for key, value in event.example.items() if key != name}
        assert not Draft202012Validator(event.schema).is_valid(without), name


def test_each_type_is_listed_once() -> None:
    assert len(BY_TYPE) == len(OWN)


@pytest.mark.parametrize("event", OWN, ids=lambda event: event.type)
def test_a_thin_example_says_what_to_fetch(event: EventType) -> None:
    kept = thin(event.example)
    assert kept.keys() & {"runId", "jobId", "documentId", "delivery", "endpoint"}
    assert not kept.keys() & {"result", "output", "error", "reason", "progress", "steps"}
