"""The OpenAPI document is a valid 3.1 one, describes every route there is, and the answers are as it says."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from tests.support.api import DOCUMENT, DOCUMENT_UPLOAD, Api, Reply, serving


@pytest.fixture
async def api(redis: Redis, tmp_path: Path) -> AsyncIterator[Api]:
    workflow = DOCUMENT_UPLOAD | {"triggers": [{"queue": "document-processing"}]}
    async with serving(redis, tmp_path, workflows={"document-upload": workflow}) as api:
        yield api


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    reply = await api.call("GET", "/openapi.json", as_=None)
    assert reply.status == 200
    return dict(reply.json)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from _references(child)
    elif isinstance(value, list):
        for child in value:
            yield from _references(child)


async def test_its_structure_is_that_of_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(document["info"])
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))
    for path, method, operation in _operations(document):
        assert re.fullmatch(r"(/([A-Za-z0-9._-]+|\{\w+\}))+", path), path
        assert method in ("get", "post", "put", "patch", "delete")
        assert operation["responses"], path
        assert set(re.findall(r"\{(\w+)\}", path)) == {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        for parameter in operation["parameters"]:
            assert parameter["in"] in ("path", "query", "header")
            assert isinstance(parameter["required"], bool)
            Draft202012Validator.check_schema(parameter["schema"])
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert json.dumps(document).count("-Input") == json.dumps(document).count("-Output") == 0


async def test_it_has_every_route_that_is_served_and_no_other(api: Api, document: dict[str, Any]) -> None:
    served = {
        (route.resource.canonical, route.method.lower())
        for resource in api.app.router.resources()
        for route in resource
        if route.method != "HEAD" and route.resource
    }
    assert {(path, method) for path, method, _ in _operations(document)} == served - {("/api/jobs/{queueName}", "post")}


async def test_who_may_call_what_is_written_down(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert paths["/health/live"]["get"]["security"] == []
    assert paths["/api/runs"]["get"]["security"] == [{"bearer": []}]
    assert {} in paths["/api/jobs/notifications"]["post"]["security"]
    assert "403" in paths["/api/jobs/stats"]["get"]["responses"]
    keyed = {
        (path, method) for path, method, operation in _operations(document) if any(p["name"] == "Idempotency-Key" for p in operation["parameters"])
    }
    assert all({"400", "409"} <= set(paths[path][method]["responses"]) for path, method in keyed)
    posts = {(path, method) for path, method, operation in _operations(document) if method == "post"}
    # Done twice these are as good as done once, and a callback's link is good for one answer.
    repeatable = {f"/api/webhooks/endpoints/{{endpointId}}/{verb}" for verb in ("enable", "pause")} | {
        "/api/callbacks/{id}",
        "/api/webhooks/replays/{replayId}/cancel",
    }
    assert {path for path, _ in posts - keyed} <= repeatable


async def test_answers_are_as_the_document_says(api: Api, document: dict[str, Any]) -> None:
    def fits(reply: Reply, path: str, method: str) -> None:
        answer = document["paths"][path][method]["responses"][str(reply.status)]
        (content,) = answer["content"].items()
        assert reply.headers["Content-Type"].partition(";")[0] == content[0]
        schema = {"$defs": document["components"]["schemas"], **content[1]["schema"]}
        text = json.dumps(schema).replace("#/components/schemas/", "#/$defs/")
        Draft202012Validator(json.loads(text)).validate(reply.json)

    posted = await api.call("POST", "/api/jobs/document-processing", body=DOCUMENT)
    fits(posted, "/api/jobs/document-processing", "post")
    run, job = posted.json["runId"], posted.json["jobId"]
    calls = [
        ("GET", "/api/jobs/status/{queueName}/{jobId}", f"/api/jobs/status/document-processing/{job}", None),
        ("GET", "/api/jobs/status/{queueName}/{jobId}", "/api/jobs/status/document-processing/nope", None),
        ("GET", "/api/jobs/stats/{queueName}", "/api/jobs/stats/notifications", None),
        ("GET", "/api/jobs/stats", "/api/jobs/stats", None),
        ("GET", "/api/workflows", "/api/workflows", None),
        ("GET", "/api/workflows/{name}", "/api/workflows/document-upload", None),
        ("POST", "/api/workflows/{name}/runs", "/api/workflows/document-upload/runs", {"input": {}}),
        ("POST", "/api/workflows/{name}/runs", "/api/workflows/document-upload/runs", {"input": DOCUMENT}),
        ("POST", "/api/auth/workflow/document-upload", "/api/auth/workflow/document-upload", DOCUMENT),
        ("GET", "/api/runs", "/api/runs", None),
        ("GET", "/api/runs/{runId}", f"/api/runs/{run}", None),
        ("GET", "/api/runs/{runId}/events", f"/api/runs/{run}/events", None),
        ("POST", "/api/runs/{runId}/cancel", f"/api/runs/{run}/cancel", None),
        ("POST", "/api/runs/{runId}/retry", f"/api/runs/{run}/retry", None),
        ("POST", "/api/events", "/api/events", [{"type": "a", "data": {}}]),
        ("GET", "/api/events", "/api/events", None),
        ("PUT", "/api/events/types/{type}", "/api/events/types/invoice.paid", {"schema": {"type": "object"}}),
        ("GET", "/api/events/types/{type}", "/api/events/types/invoice.paid", None),
        ("GET", "/api/events/types", "/api/events/types", None),
        ("GET", "/health/live", "/health/live", None),
        ("GET", "/health/ready", "/health/ready", None),
    ]
    for method, path, address, body in calls:
        fits(await api.call(method, address, as_="admin", body=body), path, method.lower())


async def test_the_page_on_the_api_has_every_route_with_an_example(document: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    sections = {found[1]: found[2] for found in re.finditer(r"^### `([A-Z]+ \S+)`$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)}
    assert set(sections) == {f"{method.upper()} {path}" for path, method, _ in _operations(document)}
    for name, section in sections.items():
        assert "curl " in section, name


def test_the_jsons_on_the_page_are_json() -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    blocks = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    for block in blocks:
        json.loads(block)
