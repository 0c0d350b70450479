"""Why an endpoint got an event, or did not: from what is known to a verdict in words; reads nothing itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from webhooks.facts import Facts, Known
from webhooks.health import Breaker
from webhooks.matching import OPT_IN, matches
from webhooks.model import Delivery, DeliveryStatus, Endpoint, EndpointStatus
from webhooks.units import iso


class Verdict(StrEnum):
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    SKIPPED = "skipped"
    """A record says so, and why."""
    UNDER_WAY = "under-way"
    PAUSED = "paused"
    DISABLED = "disabled"
    ORDERED = "ordered"
    """An earlier one of the same ordering key comes first."""
    HELD = "held"
    """The receiver asked for quiet."""
    BREAKER_OPEN = "breaker-open"
    RETRYING = "retrying"
    SCHEDULED = "scheduled"
    BUSY = "busy"
    """As many attempts are under way as the endpoint allows."""
    RATE_LIMITED = "rate-limited"
    DUE = "due"
    NO_ENDPOINT = "no-endpoint"
    ENDPOINT_DELETED = "endpoint-deleted"
    UNKNOWN_EVENT = "unknown-event"
    OWN_EVENT = "own-event"
    NOT_WANTED = "not-wanted"
    """None of its types matches."""
    NOT_FANNED_OUT = "not-fanned-out"
    RECORD_EXPIRED = "record-expired"
    ENDPOINT_NEWER = "endpoint-newer"
    FILTERED = "filtered"
    """No record says so, but its filter is not true of the event."""
    NO_RECORD = "no-record"
    """It would get the event now; what it wanted has changed since."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    verdict: Verdict
    reason: str
    """A sentence."""
    advice: str | None = None
    """What to do about it, if anything."""

    def document(self, facts: Facts) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "event": facts.event,
            "type": facts.known.type if facts.known else facts.delivery.type if facts.delivery else None,
            "endpoint": facts.endpoint or None,
            "delivery": facts.delivery.id if facts.delivery else None,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "facts": [{"name": name, "value": value} for name, value in facts.named().items()],
            "advice": self.advice,
        }


def explain(facts: Facts) -> Explanation:
    record = facts.delivery
    if record is None:
        return _without_record(facts)
    match record.status:
        case DeliveryStatus.DELIVERED:
            return Explanation(verdict=Verdict.DELIVERED, reason=f"it was delivered at {iso(record.finished or facts.now)}, {_answer(facts)}")
        case DeliveryStatus.EXHAUSTED:
            return Explanation(
                verdict=Verdict.EXHAUSTED,
                reason=f"{record.reason or 'every attempt of its schedule failed'}; {_answer(facts)}",
                advice="mend the receiver, then replay the delivery",
            )
        case DeliveryStatus.SKIPPED:
            return _skipped(record.reason or "")
    return _pending(facts, record)


# --- no record --------------------------------------------------------------------------------------------------------


def _without_record(facts: Facts) -> Explanation:
    endpoint, known = facts.definition, facts.known
    if endpoint is None and facts.endpoint:
        return _no_endpoint(facts)
    if known is None:
        kept = f"; the log begins at {iso(facts.log_start)}" if facts.log_start else ""
        return Explanation(
            verdict=Verdict.UNKNOWN_EVENT,
            reason=f"no event of this id is among those that are kept{kept}",
            advice="take the id from a run's events, or from the log",
        )
    if endpoint is None:
        return Explanation(verdict=Verdict.NOT_WANTED, reason=f"no endpoint wants {known.type}")
    if known.about == endpoint.id:
        return Explanation(verdict=Verdict.OWN_EVENT, reason="the event is about this endpoint, and such an event goes to the others only")
    if not matches(endpoint.types, known.type):
        return _not_wanted(endpoint, known)
    if not known.fanned_out:
        return Explanation(
            verdict=Verdict.NOT_FANNED_OUT,
            reason=f"the event is in the log but was not turned into deliveries yet; the fan-out is {facts.behind} ms behind",
            advice="if this goes on, look whether a process with the role webhooks is up",
        )
    return _matching(facts, endpoint, known)


def _no_endpoint(facts: Facts) -> Explanation:
    if facts.deleted is None:
        return Explanation(verdict=Verdict.NO_ENDPOINT, reason=f"there is no endpoint {facts.endpoint}", advice="list the endpoints")
    when = f" at {iso(facts.deleted)}" if facts.deleted else ""
    return Explanation(verdict=Verdict.ENDPOINT_DELETED, reason=f"the endpoint was deleted{when}, and there is no record of this event for it")


def _matching(facts: Facts, endpoint: Endpoint, known: Known) -> Explanation:
    """The endpoint would get the event by its type."""
    if known.timestamp < facts.known_since:
        return Explanation(verdict=Verdict.RECORD_EXPIRED, reason="the event is older than records of deliveries are kept")
    if facts.filtered:
        return Explanation(
            verdict=Verdict.FILTERED, reason=f"there is no record, and the endpoint would not get it now: {_by_filter(facts.filtered)}"
        )
    advice = "replay what the endpoint is missing" if known.logged else "the log no longer has the event, so it cannot be sent"
    if known.timestamp < endpoint.created:
        return Explanation(
            verdict=Verdict.ENDPOINT_NEWER, reason=f"the endpoint was created at {iso(endpoint.created)}, after the event", advice=advice
        )
    return Explanation(verdict=Verdict.NO_RECORD, reason="its types or its filter did not fit when the event came; they fit now", advice=advice)


def _not_wanted(endpoint: Endpoint, known: Known) -> Explanation:
    hint = f"; {known.type} is so frequent that only its full name matches it" if known.type in OPT_IN else ""
    return Explanation(
        verdict=Verdict.NOT_WANTED,
        reason=f"none of the endpoint's types ({', '.join(endpoint.types)}) matches {known.type}{hint}",
        advice="add the type to the endpoint, then replay what it is missing",
    )


# --- a record ---------------------------------------------------------------------------------------------------------


def _skipped(reason: str) -> Explanation:
    match reason:
        case "endpoint-disabled":
            return Explanation(
                verdict=Verdict.SKIPPED,
                reason="the endpoint was disabled when the event came",
                advice="enable the endpoint, then replay the delivery",
            )
        case "endpoint-deleted":
            return Explanation(verdict=Verdict.SKIPPED, reason="the endpoint was deleted before it was delivered")
    return Explanation(verdict=Verdict.SKIPPED, reason=_by_filter(reason), advice="change the endpoint's filter, then replay the delivery")


def _by_filter(reason: str) -> str:
    return "the endpoint's filter is not true of the event" if reason == "filtered" else reason or "it was skipped"


def _pending(facts: Facts, record: Delivery) -> Explanation:
    endpoint = facts.definition
    if facts.leased:
        return Explanation(verdict=Verdict.UNDER_WAY, reason=f"attempt {record.attempts + 1} is being made")
    if endpoint is None:
        return Explanation(verdict=Verdict.ENDPOINT_DELETED, reason="the endpoint was deleted; the delivery is about to be recorded as skipped")
    since = f" since {iso(endpoint.since)}" if endpoint.since else ""
    because = since + (f": {endpoint.reason}" if endpoint.reason else "")
    if endpoint.status is EndpointStatus.DISABLED:
        return Explanation(verdict=Verdict.DISABLED, reason=f"the endpoint is disabled{because}; the delivery waits", advice="enable the endpoint")
    if endpoint.status is EndpointStatus.PAUSED:
        return Explanation(verdict=Verdict.PAUSED, reason=f"the endpoint is paused{because}; the delivery waits", advice="enable the endpoint")
    if facts.head is not None:
        return Explanation(
            verdict=Verdict.ORDERED,
            reason=f"it keeps its order behind {facts.head}, which has the same {endpoint.ordering} and has not ended",
            advice=f"look why {facts.head} is pending",
        )
    if endpoint.health.held_until and endpoint.health.held_until > facts.now:
        return Explanation(verdict=Verdict.HELD, reason=f"the receiver wants nothing before {iso(endpoint.health.held_until)}{_after(facts)}")
    return _through_breaker(facts, endpoint) or _scheduled(facts, record, endpoint)


def _through_breaker(facts: Facts, endpoint: Endpoint) -> Explanation | None:
    health = endpoint.health
    match health.breaker(facts.now):
        case Breaker.OPEN:
            reason = f"{health.failures} attempts at this endpoint failed in a row; it is tried again at {iso(health.open_until or 0)}{_after(facts)}"
        case Breaker.HALF_OPEN if facts.mailbox.under_way:
            reason = f"{health.failures} attempts at this endpoint failed in a row; one at a time finds out whether it is well again{_after(facts)}"
        case _:
            return None
    return Explanation(verdict=Verdict.BREAKER_OPEN, reason=reason, advice="mend the receiver")


def _scheduled(facts: Facts, record: Delivery, endpoint: Endpoint) -> Explanation:
    """The endpoint can be served."""
    box = facts.mailbox
    if record.due and record.due > facts.now:
        if record.attempts:
            return Explanation(verdict=Verdict.RETRYING, reason=f"attempt {record.attempts + 1} is due at {iso(record.due)}{_after(facts)}")
        return Explanation(verdict=Verdict.SCHEDULED, reason=f"its first attempt is due at {iso(record.due)}, by the endpoint's schedule")
    if box.under_way >= endpoint.concurrency:
        return Explanation(
            verdict=Verdict.BUSY,
            reason=f"{box.under_way} attempts are under way, as many as the endpoint allows; {box.ahead} come before this one",
            advice="raise the endpoint's concurrency if the receiver can take more, or make it answer sooner",
        )
    if box.rate_until > facts.now:
        return Explanation(
            verdict=Verdict.RATE_LIMITED,
            reason=f"the endpoint takes {endpoint.rate}, the next at {iso(box.rate_until)}; {box.ahead} come before this one",
            advice="raise the endpoint's rate if the receiver can take more",
        )
    return Explanation(
        verdict=Verdict.DUE,
        reason=f"it is due and waits to be taken; {box.ahead} come before this one",
        advice="if this goes on, look whether a process with the role webhooks is up",
    )


def _answer(facts: Facts) -> str:
    last = facts.last
    if last is None:
        return "its attempts are no longer kept"
    said = f"answered {last.status}" if last.status is not None else last.error or "without an answer"
    return f"attempt {last.number} at {iso(last.at)}: {said}"


def _after(facts: Facts) -> str:
    return f"; {_answer(facts)}" if facts.last else ""
