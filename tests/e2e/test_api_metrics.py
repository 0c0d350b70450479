"""`GET /metrics`: what Prometheus scrapes, in the form that it reads, for those with a token."""

import re
from pathlib import Path

from redis.asyncio import Redis

from pipeline.api.metrics import family
from pipeline.store.event import Event
from pipeline.store.group import Group
from tests.support.api import NOTIFICATION, serving

LINE = re.compile(r'(?P<name>[a-z_]+)(\{(?P<labels>[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*)\})? (?P<value>[0-9.e+-]+)')
COMMENT = re.compile(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram|summary))")


def parsed(text: str) -> dict[str, float]:
    """`name{labels}` → value; fails for what is not of the format, or for a sample apart from its family."""
    found: dict[str, float] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("#"):
            assert COMMENT.fullmatch(line), line
            family = line.split()[2]
            continue
        match = LINE.fullmatch(line)
        assert match, line
        assert match["name"].removeprefix(family) in ("", "_bucket", "_sum", "_count"), line
        name = line.rpartition(" ")[0]
        assert name not in found, f"{name} is there twice"
        found[name] = float(match["value"])
    return found


async def test_queues_log_and_webhooks(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as api:
        for as_, status in (("service", 200), ("admin", 200), ("user", 403), (None, 401)):
            reply = await api.call("GET", "/metrics", as_=as_)
            assert reply.status == status, as_
        assert (await api.call("GET", "/metrics", as_="admin")).headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        await api.call("POST", "/api/jobs/notifications", as_="user", body=NOTIFICATION)
        endpoint = (await api.call("POST", "/api/webhooks/endpoints", as_="admin", body={"url": "http://127.0.0.1:9/"})).json["id"]
        await Group(redis, api.services.log.key, "webhooks", "test").create()
        await api.services.log.append([Event(id="evt_1", type="a.b", timestamp=0, data={})])
        found = parsed((await api.call("GET", "/metrics", as_="service")).text)
    assert found['hookline_queue_jobs{queue="notifications",state="waiting"}'] == 1
    assert found['hookline_queue_jobs{queue="compliance-analysis",state="failed"}'] == 0
    assert found['hookline_log_behind_seconds{group="webhooks"}'] >= 0
    assert found[f'hookline_webhook_pending{{endpoint="{endpoint}"}}'] == 0
    assert found[f'hookline_webhook_attempts_total{{endpoint="{endpoint}",outcome="delivered"}}'] == 0
    assert found['hookline_webhook_attempt_duration_seconds_bucket{le="+Inf"}'] == 0
    assert found['hookline_webhook_deliveries{status="exhausted"}'] == 0


def test_the_text_of_a_family() -> None:
    text = family("a_b", "gauge", "What it is.", [("", {"x": 'a"b\\c\nd'}, 1.5), ("_sum", {}, 2.0)])
    assert text == '# HELP a_b What it is.\n# TYPE a_b gauge\na_b{x="a\\"b\\\\c\\nd"} 1.5\na_b_sum 2\n'
    assert set(parsed(text).values()) == {1.5, 2.0}
    assert family("a_b", "gauge", "What it is.", []) == ""
