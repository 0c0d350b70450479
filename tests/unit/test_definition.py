"""Workflows compiled from YAML: what they become, and that every mistake is refused at its line and column."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import yamlsource
from pipeline.config import Config
from pipeline.config.queues import Queue
from pipeline.errors import ConfigError, Fault
from pipeline.workflows.definition import Definition, check_input, compile_all, graph, schema

ROOT = Path(__file__).parents[2]
QUEUES = {
    "in": Queue(processors={"take": "a.b:C"}),
    "out": Queue(processors={"give": "a.b:C", "send": "a.b:D"}),
    "bare": Queue(),
}


def compiled(text: str) -> dict[str, Definition]:
    source = yamlsource.parse(dedent(text), "w.yaml")
    return compile_all(Config(queues=QUEUES, workflows=source.data["workflows"]), source)


def one(steps: str, more: str = "") -> Definition:
    """The workflow `w` of some steps (and other keys), written as one flow mapping each."""
    return compiled(f"workflows:\n  w:\n    {more}\n    steps: {{{steps}}}\n")["w"]


def faults(text: str) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    assert caught.value.file == "w.yaml"
    return caught.value.faults


def fault_of(steps: str, more: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        one(steps, more)
    (fault,) = caught.value.faults
    assert fault.line in (3, 4)
    assert fault.column
    return str(fault)


def test_the_shipped_workflow() -> None:
    source = yamlsource.parse((ROOT / "config.yaml").read_text())
    definition = compile_all(Config(workflows=source.data["workflows"]), source)["document-upload"]
    assert definition.triggers == ("document-processing",)
    assert definition.trigger_step("document-processing") == "process"
    assert definition.timeout == 86_400_000
    assert [step.id for step in definition.in_order] == ["process", "analyze", "notify"]
    assert definition.steps["analyze"].timeout == 600_000
    assert [fault.message for fault in check_input(definition, {"documentId": "d", "filename": "f", "mimeType": ""})] == [
        "'fileSize' is a required property"
    ]


def test_defaults() -> None:
    step = one("a: {queue: in}").steps["a"]
    assert (step.job, step.data, step.needs, step.condition) == ("take", "${{ input }}", (), None)
    assert (step.run_on, step.continue_on_error, step.attempts, step.backoff, step.timeout) == (("completed", "skipped"), False, None, None, None)


def test_everything_said() -> None:
    text = """
        a: {queue: in},
        b: {queue: out, job: give, needs: a, if: input.x == 1, run_on: always, continue_on_error: true, timeout: 90s,
            with: {k: 1}, retry: {attempts: 7, backoff: {type: fixed, delay: 250ms}}}
    """
    step = one(text, "version: 3\n    timeout: 2h\n    output: ${{ steps.b.status }}").steps["b"]
    assert (step.needs, step.condition, step.run_on, step.continue_on_error, step.timeout) == (("a",), "input.x == 1", ("always",), True, 90_000)
    assert (step.data, step.attempts, step.backoff) == ({"k": 1}, 7, {"type": "fixed", "delay": 250})


@pytest.mark.parametrize(("written", "condition"), [("true", None), ("false", "false"), ('"true"', "true")])
def test_a_constant_if(written: str, condition: str | None) -> None:
    assert one(f"a: {{queue: in, if: {written}}}").steps["a"].condition == condition


def test_order_and_graph() -> None:
    definition = one("d: {queue: in, needs: [b, c]}, c: {queue: in, needs: a}, b: {queue: in, needs: [a]}, a: {queue: in}")
    assert [step.id for step in definition.in_order] == ["a", "c", "b", "d"]
    assert graph(definition)["edges"] == [{"from": "b", "to": "d"}, {"from": "c", "to": "d"}, {"from": "a", "to": "c"}, {"from": "a", "to": "b"}]
    assert graph(definition)["steps"][1] == {"id": "c", "queue": "in", "job": "take", "needs": ["a"]}


# --- the content hash, and the stored form ------------------------------------------------------------------------------


def test_stored_and_read_again_it_is_the_same() -> None:
    definition = one("a: {queue: in, retry: {backoff: {delay: 5s}}}, b: {queue: in, needs: a, run_on: [failed]}", "triggers: [{queue: in}]")
    again = Definition.from_json(definition.to_json())
    assert again == definition
    assert again.digest == definition.digest
    assert list(again.steps) == ["a", "b"]


def test_the_digest_follows_the_content() -> None:
    same = one("a: {queue: in}").digest
    assert one("a: {job: take, needs: [], queue: in}").digest == same
    changed = {
        one("a: {queue: in, timeout: 1s}").digest,
        one("a: {queue: in}", "version: 2").digest,
        one("a: {queue: in}", "timeout: 1h").digest,
        same,
    }
    assert len(changed) == 4
    # The order in which steps are written is the order in which they are dispatched.
    assert one("a: {queue: in}, b: {queue: in}").digest != one("b: {queue: in}, a: {queue: in}").digest


# --- mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "more", "said"),
    [
        ("a: {queue: in, need: [b]}", "", "workflows.w.steps.a.need: unknown key 'need'; did you mean 'needs'?"),
        ("a: {queue: in}", "trigger: x", "workflows.w.trigger: unknown key 'trigger'; did you mean 'triggers'?"),
        ("a: {queue: in, retry: {attemps: 2}}", "", "did you mean 'attempts'?"),
        ("a: {queue: in, retry: {attempts: 0}}", "", "workflows.w.steps.a.retry.attempts: should be greater than or equal to 1"),
        ("a: {queue: in, retry: {attempts: true}}", "", "workflows.w.steps.a.retry.attempts: should be a valid integer"),
        ("a: {job: x}", "", "workflows.w.steps.a: 'queue' is required"),
        ("a: {queue: inn}", "", "there is no queue 'inn'; did you mean 'in'?"),
        ("a: {queue: out}", "", "'job' is required: queue 'out' has the processors give, send"),
        ("a: {queue: out, job: sent}", "", "queue 'out' has no processor for job 'sent'; did you mean 'send'?"),
        ("a: {queue: bare}", "", "queue 'bare' has no processors; declare queues.bare.processors"),
        ("a: {queue: in, timeout: 10}", "", "10 is not a duration; write a number with a unit"),
        ("a: {queue: in, timeout: 0s}", "", "would fail the step at once"),
        ("a: {queue: in}", "timeout: 0s", "would end every run at once"),
        ("a: {queue: in}", "version: one", "workflows.w.version: should be a valid integer"),
        ("a: {queue: in, continue_on_error: yes}", "", "should be true or false (yes, no, on and off are text in YAML 1.2)"),
        ("1a: {queue: in}", "", "'1a' cannot be a step's id"),
        ("a-b: {queue: in}", "", "for example 'a_b'"),
        ("a: {queue: in, needs: [a]}", "", "a step cannot need itself"),
        ("a: {queue: in}, b: {queue: in, needs: [aa]}", "", "workflows.w.steps.b.needs[0]: there is no step 'aa'; did you mean 'a'?"),
        ("a: {queue: in}, b: {queue: in, needs: aa}", "", "workflows.w.steps.b.needs: there is no step 'aa'"),
        ("a: {queue: in}, b: {queue: in, needs: [a, a]}", "", "'a' is named twice"),
        ("a: {queue: in, needs: b}, b: {queue: in, needs: c}, c: {queue: in, needs: a}", "", "a cycle: a → b → c → a (each needs the next)"),
        ("a: {queue: in}, b: {queue: in, needs: a, run_on: []}", "", "name at least one of completed, skipped, failed"),
        ("a: {queue: in}, b: {queue: in, needs: a, run_on: [always, failed]}", "", "'always' stands alone"),
        ("a: {queue: in, run_on: [failed]}", "", "has no effect on a step without needs"),
        ("a: {queue: in, with: {x: '${{ steps.b.result }}'}}, b: {queue: in}", "", "step 'b' need not have ended here; add it to the needs of 'a'"),
        ("a: {queue: in, if: steps.q.status == 1}", "", "there is no step 'q'"),
        ("a: {queue: in, if: '1 +'}", "", "workflows.w.steps.a.if: ${{ 1 + }}: ends too early"),
        ("a: {queue: in, with: {'${{ input.k }}': 1}}", "", "an expression in a key is not evaluated"),
        ("a: {queue: in}", "output: ${{ steps.b }}", "workflows.w.output: ${{ steps.b }}: there is no step 'b'"),
        ("a: {queue: in}", "input: {type: strin}", "workflows.w.input.type: not a JSON Schema: 'strin'"),
        ("a: {queue: in}", "input: {$ref: 'https://example.com/x'}", "nothing is fetched"),
        ("a: {queue: in}", "input: {$ref: '#/nope'}", "'#/nope' points at nothing in this schema"),
        ("a: {queue: in}", "input: {$ref: '#'}", "refers to itself without end"),
        ("a: {queue: in}", "triggers: [{queue: inn}]", "there is no queue 'inn'; did you mean 'in'?"),
        ("a: {queue: in}", "triggers: [{queue: out}]", "a job posted to 'out' becomes the step of that queue without needs; there is none"),
        ("a: {queue: in}, b: {queue: in}", "triggers: [{queue: in}]", "a and b both are"),
        ("a: {queue: in, if: input.x}", "triggers: [{queue: in}]", "'a' has an `if`: the job is posted already"),
        ("a: {queue: in}", "triggers: [{queue: in}, {queue: in}]", "queue 'in' is named twice"),
        ("", "", "workflows.w.steps: should have at least 1, but has 0"),
    ],
)
def test_mistakes(steps: str, more: str, said: str) -> None:
    assert said in fault_of(steps, more)


def test_transitive_needs_may_be_read() -> None:
    one("a: {queue: in}, b: {queue: in, needs: a}, c: {queue: in, needs: b, if: steps.a.status == 'completed'}", "output: ${{ steps.a.result }}")


def test_all_mistakes_are_told_at_once_each_at_its_place() -> None:
    found = faults(
        """\
        workflows:
          a b:
            steps: {x: {queue: in}}
          w:
            trigers: []
            timeout: 10
            steps:
              a: {queue: inn}
              c:
                queue: in
                needs: [a]
                with:
                  k: "v ${{ steps.zz.result }}"
                  l: ${{ inputs.a }}
          v: []
        """
    )
    assert {(fault.line, fault.column, fault.path) for fault in found} == {
        (2, 3, 'workflows."a b"'),
        (5, 5, "workflows.w.trigers"),
        (6, 14, "workflows.w.timeout"),
        (8, 18, "workflows.w.steps.a.queue"),
        (13, 21, "workflows.w.steps.c.with.k"),
        (14, 18, "workflows.w.steps.c.with.l"),
        (15, 6, "workflows.v"),
    }


def test_two_workflows_may_not_share_a_trigger() -> None:
    (fault,) = faults(
        """\
        workflows:
          v: {triggers: [{queue: in}], steps: {a: {queue: in}}}
          w: {triggers: [{queue: in}], steps: {a: {queue: in}}}
        """
    )
    assert "queue 'in' already starts workflow 'v'" in fault.message
    assert (fault.line, fault.column) == (3, 26)


def test_without_the_file_mistakes_are_told_by_path() -> None:
    with pytest.raises(ConfigError, match=r"workflows\.w\.steps\.a\.queue: there is no queue 'x'"):
        compile_all(Config(workflows={"w": {"steps": {"a": {"queue": "x"}}}}))


# --- input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"n": 1}, []),
        ({"n": "1"}, [("n", "'1' is not of type 'integer'")]),
        ({}, [("", "'n' is a required property")]),
        (7, [("", "7 is not of type 'object'")]),
        ({"n": 1, "tags": ["a", 5]}, [("tags[1]", "5 is not of type 'string'")]),
        ({"n": 1, "long": "x" * 500}, [("long", f"'{'x' * 199}…")]),
    ],
)
def test_input_against_its_schema(data: Any, said: list[tuple[str, str]]) -> None:
    properties = "n: {type: integer}, tags: {$ref: '#/$defs/tags'}, long: {maxLength: 9}"
    written = f"{{type: object, required: [n], properties: {{{properties}}}, $defs: {{tags: {{items: {{type: string}}}}}}}}"
    definition = one("a: {queue: in}", f"input: {written}")
    assert [(fault.path, fault.message) for fault in check_input(definition, data)] == said


def test_at_most_twenty_faults_of_an_input() -> None:
    assert len(check_input(one("a: {queue: in}", "input: {items: {type: string}}"), list(range(100)))) == 20


def test_the_schema_for_editors_knows_the_keys_as_written() -> None:
    step = schema()["$defs"]["Step"]
    assert {"queue", "job", "with", "needs", "if", "run_on", "continue_on_error", "retry", "timeout"} == set(step["properties"])
    assert step["additionalProperties"] is False


def test_definitions_are_frozen() -> None:
    definition = one("a: {queue: in}")
    with pytest.raises((AttributeError, ValidationError)):
        definition.version = 2  # type: ignore[misc]
