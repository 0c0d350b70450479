"""Which patterns match which types."""

import pytest

from webhooks.matching import Router, check_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "type", "expected"),
    [
        ("job.completed", "job.completed", True),
        ("job.completed", "job.failed", False),
        ("job.completed", "job.completed.late", False),
        ("job.*", "job.completed", True),
        ("job.*", "job", False),
        ("job.*", "jobs.completed", False),
        ("workflow.*", "workflow.step.completed", True),
        ("workflow.step.*", "workflow.step.completed", True),
        ("workflow.step.*", "workflow.completed", False),
        ("*", "job.completed", True),
        ("*", "ping", True),
        ("*", "job.progress", False),
        ("job.*", "job.progress", False),
        ("job.progress", "job.progress", True),
        ("job", "job.completed", False),
    ],
)
def test_matches(pattern: str, type: str, expected: bool) -> None:
    assert matches([pattern], type) is expected
    router = Router()
    router.put("e", [pattern])
    assert router.route(type) == (["e"] if expected else [])


@pytest.mark.parametrize("pattern", ["job.completed", "*", "job.*", "a_b.C9.*", "ping"])
def test_patterns(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["", ".", "job.", ".job", "job..x", "job*", "*.completed", "job.*.x", "**", "job.comp-leted", "job completed", "jöb", "a" * 129]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\*|segments|longer"):
        check_pattern(pattern)


def test_the_router_follows_changes() -> None:
    router = Router()
    router.put("a", ["job.*", "*", "job.completed"])
    router.put("b", ["job.failed"])
    assert router.route("job.completed") == ["a"]
    assert router.route("job.failed") == ["a", "b"]
    router.put("a", ["ping"])
    assert router.route("job.failed") == ["b"]
    router.drop("b")
    router.drop("b")
    assert router.route("job.failed") == []
    assert router.route("ping") == ["a"]
