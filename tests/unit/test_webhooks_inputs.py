"""What may be said about an endpoint."""

from typing import Any

import pytest

from webhooks.errors import InvalidInput
from webhooks.inputs import Declared, EndpointChanges, NewEndpoint, NewReplay, parse
from webhooks.signing import generate_secret
from webhooks.units import parse_rate

URL = {"url": "https://example.com/hook"}


def test_the_least_and_the_most() -> None:
    least = parse(NewEndpoint, URL)
    assert (least.types, least.timeout, least.concurrency, least.schedule) == (("*",), 15_000, 10, None)
    most = parse(
        NewEndpoint,
        URL
        | {
            "types": ["job.*", "job.progress", "job.*"],
            "schedule": [0, "5s", "1.5h"],
            "timeout": "30s",
            "concurrency": 1,
            "headers": {"Authorization": "Bearer x"},
            "secret": generate_secret(),
            "description": "Žluťoučký",
        },
    )
    assert most.types == ("job.*", "job.progress")
    assert most.schedule == (0, 5_000, 5_400_000)
    assert most.headers == {"authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("wrong", "path", "says"),
    [
        ({"url": None}, "url", "string"),
        ({"urls": "x"}, "urls", "there are url, types"),
        ({"types": []}, "types", "must have at least 1 item"),
        ({"types": ["job*"]}, "types", "whole segments"),
        ({"types": "job.*"}, "types", "must be a list"),
        ({"schedule": []}, "schedule", "1 to 30"),
        ({"schedule": [5]}, "schedule.0", "not a duration"),
        ({"schedule": ["8d"]}, "schedule", "at most 7d"),
        ({"schedule": ["0s"] * 31}, "schedule", "1 to 30"),
        ({"timeout": "31s"}, "timeout", "1s to 30s"),
        ({"timeout": "1ms"}, "timeout", "1s to 30s"),
        ({"concurrency": 0}, "concurrency", "must be greater than"),
        ({"payload": "slim"}, "payload", "must be 'full' or 'thin'"),
        ({"concurrency": True}, "concurrency", "integer"),
        ({"headers": {"Host": "x"}}, "headers", "the header host is reserved"),
        ({"headers": {"X-Fine": "x", "webhook-id": "x"}}, "headers", "the header webhook-id is reserved"),
        ({"filter": "event.data.score < 50"}, "filter", "this service has no filters"),
        ({"filter": ""}, "filter", "at least 1 character"),
        ({"filter": "true" + " " * 1_000}, "filter", "at most 1000 characters"),
        ({"headers": []}, "headers", "must be an object"),
        ({"headers": {"x": "a\r\nb: c"}}, "headers", "printable"),
        ({"headers": {"x": "a\nb: c"}}, "headers", "printable"),
        ({"headers": {"x": "a\rb: c"}}, "headers", "printable"),
        ({"headers": {"x": "ü"}}, "headers", "printable"),
        ({"headers": {"x": "a" * 4097}}, "headers", "at most 4096"),
        ({"headers": {"x" * 65: "a"}}, "headers", "at most 64"),
        ({"asymmetric": "yes"}, "asymmetric", "must be true or false"),
        ({"headers": {"x y": "a"}}, "headers", "name"),
        ({"headers": {"X": "a", "x": "b"}}, "headers", "case"),
        ({"headers": {"x": "(hidden)"}}, "headers", "real one"),
        ({"headers": {f"x{n}": "" for n in range(21)}}, "headers", "at most 20"),
        ({"secret": "hunter2-is-not-base64!"}, "secret", "openssl"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_never_quoted(wrong: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(NewEndpoint, URL | wrong)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert says in fault.message
    assert "hunter2" not in repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Date",
            "Trailers",
            "Content-Type",
            "Content-Length",
            "Content-Encoding",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
        ),
        *("Proxy-Authorization", "Proxy-Connection", "Expect", "HTTP2-Settings", "Via", "Forwarded", "X-Forwarded-For", "Host", "User-Agent"),
        *(
            "Webhook-Signature",
            "webhook-anything",
            "traceparent",
            "tracestate",
            "Cookie",
            "Coo\u212aie",
            "Set-Cookie",
            "Accept-Encoding",
            "Sec-Fetch-Mode",
        ),
    ],
)
def test_headers_of_the_connection_and_the_sender_are_reserved(name: str) -> None:
    with pytest.raises(InvalidInput, match="is reserved"):
        parse(NewEndpoint, URL | {"headers": {name: "x"}})


def test_headers_that_say_who_asks_are_not_reserved() -> None:
    names = ("authorization", "x-api-key", "x-hook", "accept", "idempotency-key", "cf-access-client-secret")
    assert parse(NewEndpoint, URL | {"headers": dict.fromkeys(names, "x")}).headers.keys() == set(names)
    assert len(parse(NewEndpoint, URL | {"headers": {f"x{n}": "a" * 4096 for n in range(20)}}).headers) == 20


@pytest.mark.parametrize("given", [5, None, True, [], "2026", "yesterday", "20260131"])
def test_a_time_is_a_text_with_a_zone(given: object) -> None:
    with pytest.raises(InvalidInput, match=r"since: .* (is not a time; write one like|has no zone)"):
        parse(NewReplay, {"since": given})
    assert parse(NewReplay, {"since": "2026-01-31T10:00:00+01:00", "until": None}).since == 1_769_850_000_000


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_utc_cannot_write_is_none(given: str) -> None:
    # It would be shown, and kept, in UTC.
    with pytest.raises(InvalidInput, match=r"since: .* lies outside the years 1 to 9999 of UTC"):
        parse(NewReplay, {"since": given})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(NewEndpoint, {"types": ["a..b"], "timeout": "1h", "filter": "x"})
    assert {fault.path for fault in caught.value.faults} == {"url", "types", "timeout", "filter"}


def test_changes_name_only_what_changes() -> None:
    assert parse(EndpointChanges, {"schedule": None}).model_fields_set == {"schedule"}
    for name in ("url", "types", "timeout", "concurrency", "headers", "description"):
        with pytest.raises(InvalidInput, match="leave it out"):
            parse(EndpointChanges, {name: None})
    for name in ("secret", "status", "id", "source"):
        with pytest.raises(InvalidInput, match="is not known"):
            parse(EndpointChanges, {name: "x"})


def test_what_is_declared_is_checked_and_named() -> None:
    fine = Declared(id="analysis", url="http://a/", types=("*",), secret=generate_secret(), schedule=(0, 1500), timeout=2_000)
    assert fine.checked().schedule == (0, 1500)
    with pytest.raises(InvalidInput, match="the endpoint analysis") as caught:
        Declared(id="analysis", url="http://a/", types=("*",), secret="password").checked()
    assert caught.value.faults[0].path == "analysis.secret"
    assert "password" not in repr(fine) + str(caught.value)
    for id in ("", "..", "a/b", "a" * 129):
        with pytest.raises(InvalidInput, match="endpoint's id"):
            Declared(id=id, url="http://a/", types=("*",), secret=generate_secret()).checked()


@pytest.mark.parametrize(
    ("text", "count", "per", "written"), [("100/1m", 100, 60_000, "100/1m"), ("5/s", 5, 1_000, "5/1s"), ("1 / 90s", 1, 90_000, "1/90s")]
)
def test_rates(text: str, count: int, per: int, written: str) -> None:
    rate = parse_rate(text)
    assert (rate.count, rate.per, str(rate)) == (count, per, written)
    assert parse(NewEndpoint, {"url": "https://example.com", "rate": text}).rate == rate


@pytest.mark.parametrize("rate", ["", "10", "0/1s", "10/", "10/500ms", "10/2d", "-1/1s", "1e3/1s", 5, "10/1"])
def test_rates_refused(rate: object) -> None:
    with pytest.raises(InvalidInput, match=r"rate: .*is not a rate; write a number, a slash"):
        parse(NewEndpoint, {"url": "https://example.com", "rate": rate})


@pytest.mark.parametrize("ordering", ["documentId", "data", "data.", "data..x", "data.a b", "event.data.x"])
def test_ordering_is_a_path_in_the_data(ordering: str) -> None:
    with pytest.raises(InvalidInput, match=r"ordering: an ordering key is a path in the data .* for example data.documentId"):
        parse(NewEndpoint, {"url": "https://example.com", "ordering": ordering})


@pytest.mark.parametrize("field", ["payload", "asymmetric", "concurrency"])
def test_what_cannot_be_null(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field}: cannot be null"):
        parse(EndpointChanges, {field: None})
    assert parse(EndpointChanges, {"rate": None, "ordering": None, "filter": None, "schedule": None}).rate is None
