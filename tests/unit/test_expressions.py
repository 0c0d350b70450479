"""Expressions: their values and types, what is refused when they are loaded, and that they end soon whatever the data."""

import time
from typing import Any

import pytest

from pipeline.workflows import expressions
from pipeline.workflows.expressions import ExpressionError, condition, evaluate_if, render, template
from pipeline.workflows.values import needs, without_the_rest

SCOPE: dict[str, Any] = {
    "input": {
        "a": 1,
        "f": 2.0,
        "g": 1.5,
        "b": "x",
        "n": None,
        "l": [1, 2, 3],
        "o": {"z": 1, "y": [True, None]},
        "u": 2**63 + 5,
        "a-b": "dash",
        "t": "ü",
    },
    "run": {"id": "run_1", "workflow": "w", "userId": "u-1", "createdAt": "2026-01-31T09:30:00.000Z"},
    "steps": {
        "bad": {"status": "failed", "result": None, "error": "boom"},
        "off": {"status": "skipped", "result": None, "error": None},
        "good": {"status": "completed", "result": {"score": None, "count": 12.0, "path": "/x", "flag": True}, "error": None},
    },
}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no expression", "no expression"),
        (17, 17),
        (None, None),
        ("${{ input.a }}", 1),
        ("${{input.a}}", 1),
        ("${{ input.f }}", 2.0),
        ("${{ input.n }}", None),
        ("${{ input.l }}", [1, 2, 3]),
        ("${{ input.l[1] }}", 2),
        ("${{ input.o }}", {"z": 1, "y": [True, None]}),
        ('${{ input["a-b"] }}', "dash"),
        ("${{ input.u }}", 2**63 + 5),
        ("${{ steps.good.result.score }}", None),
        ("${{ steps.bad.error }}", "boom"),
        ("${{ steps['good']['status'] }}", "completed"),
        ("${{ run.userId }}", "u-1"),
        ("${{ input.a + 1 }}", 2),
        ("${{ 1 + input.a }}", 2),
        ("${{ -input.a }}", -1),
        ("${{ (input.a) }}", 1),
        ("${{ !steps.good.result.flag }}", False),
        ("${{ input.a == 1.0 }}", True),
        ('${{ input.b + "y" }}', "xy"),
        ("${{ input.l.map(x, x * 2) }}", [2, 4, 6]),
        ("${{ input.l.filter(x, x > 1).map(y, y + 1) }}", [3, 4]),
        ('${{ has(input.zzz) ? input.zzz : "none" }}', "none"),
        ('${{ {"a": {"b": 1}} }}', {"a": {"b": 1}}),
        ('${{ "}}" }}', "}}"),
        ('${{ "${{" }} x', "${{ x"),
        ("${{ timestamp(run.createdAt) }}", "2026-01-31T09:30:00.000Z"),
        ("a ${{ input.a }} b ${{ input.b }}", "a 1 b x"),
        ("${{ input.o }}!", '{"z":1,"y":[true,null]}!'),
        ("${{ input.l }} ${{ true }} ${{ input.n }}", "[1,2,3] true null"),
        ("${{ input.f }}/${{ input.g }}/${{ input.t }}", "2/1.5/ü"),
        ({"k": ["${{ input.a }}", {"m": "v${{ input.a }}"}], "c": 5}, {"k": [1, {"m": "v1"}], "c": 5}),
    ],
)
def test_rendered(written: Any, value: Any) -> None:
    rendered = render(written, SCOPE)
    assert rendered == value
    assert type(rendered) is type(value)


def test_objects_come_out_in_one_order() -> None:
    # CEL's maps have none: without sorting, the same decision would differ from process to process.
    text = '${{ {"z": 1, "y": 2, "x": 3, "w": {"b": 1, "a": 2}} }}'
    assert list(render(text, SCOPE)) == ["w", "x", "y", "z"]
    assert list(render("${{ input.o }}", SCOPE)) == ["z", "y"]


def test_the_value_is_a_copy_of_nothing_it_did_not_read() -> None:
    before = repr(SCOPE)
    render("${{ input.l.map(x, x) }} ${{ input.o.z + input.a }}", SCOPE)
    assert repr(SCOPE) == before


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("${{ steps.bad.result.x }}", "steps.bad.result is null (the step is failed)"),
        ("${{ steps.off.result.x.y }}", "steps.off.result is null (the step is skipped)"),
        ("${{ steps.good.result.pth }}", "steps.good.result has no 'pth'; did you mean 'path'?"),
        ("${{ steps.good.result.score.x }}", "steps.good.result.score is null"),
        ("${{ steps.good.result.score > 5 }}", "steps.good.result.score is null"),
        ("${{ size(input.n) }}", "input.n is null"),
        ("${{ input.l[7] }}", "input.l has only 3 elements"),
        ("${{ input.a.b }}", "input.a is a number and has no 'b'"),
        ('${{ input.a + "x" }}', "does not fit these types"),
        ("${{ 1 / (input.a - 1) }}", "divides by zero"),
        ("${{ 9223372036854775807 + input.a }}", "overflow"),
        ("${{ int(input.b) }}", "string parse error"),
        ('${{ duration("1s") }}', "gives a duration"),
        ("${{ {1: 2} }}", "keys are not text"),
        ("${{ 1.0 / 0.0 }}", "JSON cannot say"),
    ],
)
def test_an_expression_without_a_value_says_which_and_why(written: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render({"k": written}, SCOPE)
    assert reason in caught.value.reason
    assert caught.value.expression == written.removeprefix("${{ ").removesuffix(" }}")
    assert caught.value.expression in str(caught.value)


@pytest.mark.parametrize(
    ("written", "holds"),
    [
        ("input.a == 1", True),
        ("${{ input.a == 1 }}", True),
        (" ${{ input.a == 2 }} ", False),
        ('steps.bad.status == "failed"', True),
        ("input.n == null", True),
        ("steps.bad.result.x > 1", False),
        ("steps.bad.result.x.y == null", False),
        ("input.zzz == 1", False),
        ("input.l[9] == 1", False),
        ("has(input.zzz)", False),
        ("has(steps.good.result.path)", True),
        ("steps.bad.result.x == 1 || true", True),
        ("input.l.exists(x, x == 3)", True),
        ('input.b.matches("^[a-x]$")', True),
        ("false", False),
    ],
)
def test_conditions(written: str, holds: bool) -> None:
    assert evaluate_if(written, SCOPE) is holds


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("input.a", "must be true or false, not a number"),
        ("input.b + input.b", "must be true or false, not a text"),
        ("input.n", "must be true or false, not null"),
        # A comparison with null is a mistake that must not silently skip a step: an unreadable document has no score.
        ("steps.good.result.score < 50", "steps.good.result.score is null"),
        ('input.a < "x"', "does not fit these types"),
        ("a ${{ true }}", "one expression"),
    ],
)
def test_conditions_that_fail(written: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason.replace(".", r"\.")):
        evaluate_if(written, SCOPE)


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [
        ("ab ${{ input.a + }}", 16, "ends too early"),
        ("ab ${{ input.a", 3, "no closing }}"),
        ('${{ "a }}', 4, "a text is not closed"),
        ("${{ }}", 4, "is empty"),
        ("${{ inputs.a }}", 4, "no variable 'inputs'; did you mean 'input'?"),
        ("${{ 1 + foo }}", 8, "no variable 'foo'"),
        ("${{ input.b.match('x') }}", 12, "no function 'match'; did you mean 'matches'?"),
        ("${{ now() }}", 4, "no function 'now'"),
        ("${{ steps.a.outcome }}", 12, "has no 'outcome'"),
        ("${{ run.user }}", 8, "run has no 'user'; did you mean 'userId'?"),
        ("${{ size(steps) }}", 9, "name the step"),
        ("${{ steps[input.a].result }}", 4, "name the step"),
        ("${{ b'x' }}", 4, "bytes are not JSON"),
        ("${{ input.b.matches(input.b) }}", 12, "pattern written out"),
        ("${{ input.b.matches('[') }}", 20, "the pattern is not valid"),
        ("${{ input.l.map(x, input.l.map(y, x)) }}", 27, "inside another loop"),
        ("${{ input.l.map(input, 1) }}", 16, "is a variable already"),
        ("${{ input.l.map(x) }}", 12, "takes a name and an expression"),
        ("${{ " + "1 + " * 300 + "1 }}", 4, "more than 1,000 characters"),
        ("${{ " + "(" * 400 + "1" + ")" * 400 + " }}", 4, "nested too deeply"),
        ("${{ if }}", 4, "reserved identifier"),
    ],
)
def test_mistakes_are_found_when_the_text_is_loaded(text: str, offset: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        template(text)
    assert reason in caught.value.reason
    assert caught.value.offset == offset


def test_a_name_bound_by_a_loop_is_no_mistake() -> None:
    template("${{ input.l.exists(item, item.size > 1) && input.a == 1 }}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${{ steps.good.result }}", None),
        ("${{ steps.god.result }}", "there is no step 'god'; did you mean 'good'?"),
        ("${{ steps.late.result }}", "'late' need not have ended here; add it to the needs of 'x'"),
        ("${{ [1].map(steps_, steps_) }}", None),
    ],
)
def test_steps_that_are_read_must_have_ended(text: str, said: str | None) -> None:
    (part,) = template(text)
    assert not isinstance(part, str)
    if said is None:
        expressions.check_steps(part, steps={"good", "late"}, reachable={"good"}, where="the needs of 'x'")
        return
    with pytest.raises(ExpressionError) as caught:
        expressions.check_steps(part, steps={"good", "late"}, reachable={"good"}, where="the needs of 'x'")
    assert said in caught.value.reason


def test_expressions_in_keys_are_found() -> None:
    assert list(expressions.keys({"a": [{"${{ x }}": 1}], "b": 2})) == [("a", 0, "${{ x }}")]
    assert list(expressions.texts({"a": ["x", "${{ y }}"]})) == [(("a", 1), "${{ y }}")]


# --- bounds: an engine process has one loop, so that one slow expression would hold up every run -----------------------


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("${{ input.filter(x, true) }}", list(range(1_999))),
        ("${{ input.map(x, x) }}", list(range(1_999))),
        ('${{ input.exists(x, x.matches("^(a+)+$")) }}', ["a" * 40 + "!"] * 999),
        ('${{ input.s.matches("(a|a)*b") }}', {"s": "a" * 1_000_000}),
        ("${{ " + " + ".join(["input.s"] * 4) + " }}", {"s": "x" * 200_000}),
    ],
)
def test_the_worst_that_is_allowed_ends_soon(text: str, data: Any) -> None:
    begin = time.process_time()
    render(text, {"input": data, "run": {}, "steps": {}})
    # Measured at 20 to 110 ms; the limit leaves room for a busy machine and still fails if a bound is lifted (seconds).
    assert time.process_time() - begin < 1.5


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("${{ input.filter(x, true) }}", list(range(2_001))),
        ("${{ input.l.map(x, input.s + input.s) }}", {"l": list(range(1_000)), "s": "x" * 100_000}),
        ("${{ (input + input + input).map(x, x) }}", list(range(700))),
        ("${{ " + " + ".join(["input.s"] * 20) + " }}", {"s": "x" * 1_000_000}),
    ],
)
def test_more_is_refused_before_it_is_tried(text: str, data: Any) -> None:
    begin = time.process_time()
    with pytest.raises(ExpressionError, match="reads too much data"):
        render(text, {"input": data, "run": {}, "steps": {}})
    assert time.process_time() - begin < 1.0


def test_only_what_is_read_counts() -> None:
    scope = {"input": {"big": list(range(500_000)), "l": [1]}, "run": {}, "steps": {}}
    assert render("${{ input.l.map(x, x + 1) }}", scope) == [2]


def test_of_a_scope_only_what_is_read_is_handed_over() -> None:
    needed = needs([("a", "b", 0, "c"), ("a", "b"), ("a", "x", "y"), ("d",), ("d", "e"), ("f", "g", "h"), ("f", "g")])
    assert needed == {"a": {"b": None, "x": {"y": None}}, "d": None, "f": {"g": None}}
    scope = {"a": {"b": [1, {"c": 2}], "x": None, "z": 1}, "d": {"e": 1}, "f": {}, "rest": 1}
    assert without_the_rest(scope, needed) == {"a": {"b": [1, {"c": 2}], "x": None}, "d": {"e": 1}, "f": {}}


def test_a_rendered_value_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="more than 1,048,576 bytes"):
        render(["${{ input }}"] * 11, {"input": "x" * 100_000})


def test_compiling_is_cached_and_cheap() -> None:
    assert template("${{ input.a + 1 }}") is template("${{ input.a + 1 }}")
    assert condition("input.a == 1") is condition("input.a == 1")
