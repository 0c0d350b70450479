"""One scrape for Prometheus: queues, the event log, webhooks; in its text format, version 0.0.4."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from pipeline.api.routing import Access, Route
from pipeline.api.services import services_of
from pipeline.jobs.calls import now_ms

MEDIA = "text/plain"
_VERSION = "; version=0.0.4; charset=utf-8"


async def metrics(request: web.Request) -> web.Response:
    services = services_of(request)
    parts = [
        family("hookline_queue_jobs", "gauge", "Jobs, by queue and state.", _queues(await services.queues.all_counts())),
        family(
            "hookline_log_behind_seconds",
            "gauge",
            "Age of the oldest event that a consumer group has not acknowledged.",
            [("", {"group": group}, age / 1000) for group, age in (await services.log.behind(now_ms())).items()],
        ),
        *(family(one.name, one.kind, one.help, one.samples) for one in await services.webhooks.metrics.families()),
    ]
    return web.Response(body="".join(parts).encode(), headers={"Content-Type": MEDIA + _VERSION, "Cache-Control": "no-store"})


def family(name: str, kind: str, help: str, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> str:
    """Lines of the text format: `# HELP`, `# TYPE`, and one for each sample; none for a family without samples."""
    lines = [f"{name}{suffix}{_labels(labels)} {_number(value)}\n" for suffix, labels, value in samples]
    return f"# HELP {name} {help}\n# TYPE {name} {kind}\n{''.join(lines)}" if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _queues(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, dict[str, str], Any]]:
    return [("", {"queue": queue, "state": state}, count) for queue, states in counts.items() for state, count in states.items()]


ROUTES = (
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="Queues, the event log and webhooks, for Prometheus",
        access=Access.SERVICE,
        media=MEDIA,
    ),
)
