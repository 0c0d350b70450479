"""Workflows over the tests' own processors, as the e2e suites configure them."""

from typing import Any

STEPS = ("one", "two", "three")


BUILTIN = {"document-processing": "process-document", "compliance-analysis": "analyze-compliance", "notifications": "send-notification"}


def no_libraries() -> dict[str, Any]:
    """The shipped queues without their processors, whose libraries take every worker a second to import."""
    return {name: {"processors": {job: "tests.support.processors:work"}} for name, job in BUILTIN.items()}


def queue(processor: str = "work", **settings: Any) -> dict[str, Any]:
    return {
        "processors": {"do": f"tests.support.processors:{processor}"},
        "concurrency": 8,
        "backoff": {"type": "fixed", "delay": "100ms"},
        **settings,
    }


def chain(**settings: Any) -> dict[str, Any]:
    """Three steps, one after the other; each takes the input's `ms` and leaves lines in the ledger. `settings` go to the queues."""
    return {
        "queues": {**no_libraries(), **{name: queue(**settings) for name in ("a", "b", "c")}},
        "workflows": {
            "chain": {
                "version": 1,
                "steps": {
                    "one": {"queue": "a", "with": {"documentId": "${{ input.documentId }}", "ms": "${{ input.ms }}"}},
                    "two": {"needs": ["one"], "queue": "b", "with": {"ms": "${{ steps.one.result.got.ms }}"}},
                    "three": {"needs": ["two"], "queue": "c", "with": {"ms": "${{ steps.two.result.got.ms }}"}},
                },
            }
        },
    }


def deliver_to(*endpoints: dict[str, Any]) -> dict[str, Any]:
    """The `webhooks` section: these endpoints, loopback allowed, quick retries."""
    return {"allow_networks": ["127.0.0.0/8"], "endpoints": list(endpoints), "schedule": ["0s", *["1s"] * 29]}
