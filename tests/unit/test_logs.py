"""Log lines tell what went wrong without the values that were at hand."""

import asyncio
import json

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline import logs


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format)  # type: ignore[arg-type]
    try:
        secret = "whsec_" + "do-not-tell"
        try:
            raise RuntimeError(f"failed with {len(secret)} characters")
        except RuntimeError:
            structlog.get_logger().exception("it broke", jobId="1")
    finally:
        structlog.reset_defaults()
    shown = capsys.readouterr().err
    assert "do-not-tell" not in shown
    assert "failed with 17 characters" in shown
    if format == "json":
        line = json.loads(shown.splitlines()[0])
        assert (line["event"], line["jobId"], line["level"]) == ("it broke", "1", "error")
        assert "Traceback" in line["exception"]


async def test_a_request_that_is_no_http_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        async with TestServer(web.Application()) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"GET / HTTP/1.1\nHost: test\nAuthorization: Bearer do-not-tell\n\n")
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 400 ")
            writer.close()
    finally:
        structlog.reset_defaults()
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"]) == ("Error handling request from 127.0.0.1: BadStatusLine", "warning")
    assert "do-not-tell" not in str(line)


def test_many_lines_at_once_are_written_like_each_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        structlog.get_logger().info("job completed", queue="q", jobId="1")
        logs.info_many("job completed", [{"queue": "q", "jobId": "1"}])
    finally:
        structlog.reset_defaults()
    alone, among_many = (line.partition(',"time":')[0] for line in capsys.readouterr().err.splitlines())
    assert {*alone.strip("{}").split(",")} == {*among_many.strip("{}").split(",")}


async def test_the_lines_of_one_tick_are_written_at_its_end_and_none_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        with structlog.contextvars.bound_contextvars(requestId="r1"):
            logs.info_soon("request", {"path": "/a", "odd": 1 << 70})
        logs.info_soon("request", {"path": "/b"})
        assert capsys.readouterr().err == ""
        await asyncio.sleep(0)
    finally:
        structlog.reset_defaults()
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["path"], first["requestId"], first["event"]) == ("/a", "r1", "request")
    assert (second["path"], "requestId" in second) == ("/b", False)


def test_a_line_that_is_not_quite_json_is_still_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    try:
        structlog.get_logger().info("odd", number=1 << 70, text="\udcff", what=object)
    finally:
        structlog.reset_defaults()
    assert json.loads(capsys.readouterr().err)["number"] == 1 << 70
