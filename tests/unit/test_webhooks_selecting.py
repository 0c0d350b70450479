"""What of an event an endpoint gets: the filter's verdict, and the thin body."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from pipeline.filters import compile_filter
from pipeline.store.event import Event
from webhooks.model import Endpoint, Payload
from webhooks.selecting import KEPT_BODIES, Bodies, Filters, thin

EVENT = Event(id="evt_1", type="invoice.paid", timestamp=1_769_851_800_000, data={"invoiceId": "i-1", "total": 90, "currency": "EUR", "text": "x"})


def endpoint(filter: str | None = None) -> Endpoint:
    return Endpoint(id="ep", url="http://a/", types=("*",), secrets=(), created=0, filter=filter)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, None),
        ("event.data.total > 50", None),
        ("event.data.total > 100", "filtered"),
        ("event.data.totl > 100", "filtered"),
        ("event.data.text > 100", "filter failed: an operator or a function does not fit these types; convert with int(…), double(…) or string(…)"),
        ("event.dat.total > 100", "filter failed: character 7: event has no 'dat'; did you mean 'data'?"),
    ],
)
def test_the_verdict_of_a_filter(text: str | None, reason: str | None) -> None:
    assert Filters(compile_filter).of(EVENT).skipped(endpoint(text)) == reason


def test_a_filter_that_breaks_in_any_other_way_stops_nobody() -> None:
    def compile(text: str) -> Any:
        raise RuntimeError("x" * 1_000)

    reason = Filters(compile).of(EVENT).skipped(endpoint("true"))
    assert reason
    assert reason.startswith("filter failed: xxx")
    assert len(reason) == 200


def test_the_same_text_is_compiled_once_and_asked_once_per_event() -> None:
    compiled: list[str] = []
    asked: list[str] = []

    def compile(text: str) -> Any:
        compiled.append(text)

        def predicate(event: Mapping[str, Any]) -> bool:
            asked.append(event["id"])
            return True

        return predicate

    filters = Filters(compile)
    for event in (EVENT, Event(id="evt_2", type="a", timestamp=0, data={})):
        selection = filters.of(event)
        for _ in range(100):
            assert selection.skipped(endpoint("event.data.a")) is None
    assert (compiled, asked) == (["event.data.a"], ["evt_1", "evt_2"])


def test_thin_bodies_are_made_once_while_they_are_wanted() -> None:
    full, bodies = orjson.dumps(EVENT.document()), Bodies()
    assert bodies.of("evt_1", full, Payload.FULL) is full
    short = bodies.of("evt_1", full, Payload.THIN)
    assert short == b'{"type":"invoice.paid","timestamp":"2026-01-31T09:30:00.000Z","data":{"invoiceId":"i-1"}}'
    assert bodies.of("evt_1", full, Payload.THIN) is short
    for n in range(KEPT_BODIES):
        bodies.of(f"evt_of_others_{n}", full, Payload.THIN)
    assert bodies.of("evt_1", full, Payload.THIN) is not short


def test_thin_keeps_what_identifies_and_nothing_else() -> None:
    kept = {
        **{"id": 1, "runId": "run_1", "invoice_id": "i-1", "ids": [1, 2], "documentIds": ["a", None], "tag_ids": [], "userId": None},
        **{"queue": "q", "job": "j", "workflow": "w", "step": "s", "n": 1, "version": 3, "status": "completed"},
        **{"endpoint": "ep_1", "delivery": "dlv_1", "eventType": "job.completed"},
    }
    left = {
        **{"result": {"runId": "x"}, "steps": {"a": "completed"}, "paid": True, "idea": "x", "Id": "x", "grid": 5, "identity": "x", "error": "x"},
        **{"longId": "x" * 257, "objectId": {"id": 1}, "nestedIds": [["a"]], "objectIds": [{"id": 1}], "manyIds": list(range(101))},
    }
    assert thin(kept | left) == kept
