"""Log lines tell what went wrong without the values that were at hand."""

import json

import pytest
import structlog

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
