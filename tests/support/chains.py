"""Workflows over the tests' own processors, as the e2e suites configure them."""

from typing import Any

STEPS = ("one", "two", "three")


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
        "queues": {name: queue(**settings) for name in ("a", "b", "c")},
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
