"""The runs that an engine process has just moved: handed out once, and never more than there is room for."""

from pipeline.workflows.model import Run
from pipeline.workflows.moved import Moved


def run(id: str) -> Run:
    return Run(id=id, workflow="w", version=1, digest="d", user_id=None, input=None, created_at=1)


def test_a_run_is_handed_out_once() -> None:
    moved = Moved()
    moved.put(run("a"), "2", 10)
    assert moved.take("a") == (run("a"), "2")
    assert moved.take("a") is None


def test_the_oldest_make_room() -> None:
    moved = Moved(room=100)
    for id in "abc":
        moved.put(run(id), "1", 40)
    moved.put(run("b"), "2", 40)
    assert [moved.take(id) for id in "abc"] == [None, (run("b"), "2"), (run("c"), "1")]
    moved.put(run("large"), "1", 1000)
    assert moved.take("large") is None
    moved.put(run("d"), "1", 100)
    assert moved.take("d")
