"""YAML read as plain data with positions: what is taken, what is refused and where the complaint points."""

import pytest

from pipeline.errors import ConfigError
from pipeline.yamlsource import dotted, parse, suggestion


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("on", "on"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("TRUE", "TRUE"),
        ("true", True),
        ("false", False),
        ("22:30", "22:30"),
        ("2024-01-01", "2024-01-01"),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("~", None),
        ("", None),
        ('"12"', "12"),
        ("!!str 12", "12"),
        ("${{ input.a }}", "${{ input.a }}"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, read: object) -> None:
    data = parse(f"a: {written}\n").data
    assert data == {"a": read}
    assert type(data["a"]) is type(read)


def test_the_key_on_stays_text() -> None:
    assert parse("on: {no: 1}").data == {"on": {"no": 1}}


def test_every_key_and_value_has_a_position() -> None:
    source = parse("a:\n  - b: 1\n    c: 'x'\n")
    assert (source.keys[("a", 0, "c")].line, source.keys[("a", 0, "c")].column) == (3, 5)
    assert (source.values[("a", 0, "b")].line, source.values[("a", 0, "b")].column) == (2, 8)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("k: ab ${{ x }}", 10),  # plain
        ("k: 'ab ${{ x }}'", 11),  # quoted: the quote itself is not part of the text
        ('k: "a\\b ${{ x }}"', 4),  # an escape: only the start of the value is sure
        ("k: |\n  ab ${{ x }}", 4),  # a block: likewise
    ],
)
def test_an_offset_moves_the_column_only_where_the_text_stands_as_it_reads(text: str, column: int) -> None:
    fault = parse(text).fault(("k",), "here", offset=6)
    assert (fault.line, fault.column) == (1, column)


def test_a_missing_key_is_shown_at_the_key_that_should_hold_it() -> None:
    fault = parse("a:\n  b:\n    c: 1\n").fault(("a", "b", "d"), "is required")
    assert (fault.line, fault.column) == (2, 3)


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "occurs twice; the first is in line 1"),
        ("a:\n\t- b", 2, 1, "spaces"),
        ("a: [1, 2", 1, 9, "expected ',' or ']'"),
        ("a: {b: ${{ x }}}", 1, 9, "in quotes"),
        ("a: ${{ b ? c : d }}", 1, 14, "in quotes"),
        ("---\na: 1\n---\nb: 2", 3, 1, "one document"),
        ("<<: {a: 1}", 1, 1, "merge keys"),
        ("1: a", 1, 1, "a key must be text; write it in quotes: '1'"),
        ("true: a", 1, 1, "in quotes: 'true'"),
        ("? [a]\n: b", 1, 3, "a key must be text"),
        ("a: !foo x", 1, 4, "'!foo' is not supported"),
        ("a: .nan", 1, 4, "not a number that JSON can say"),
        ("a: .inf", 1, 4, "not a number that JSON can say"),
        ("a: &x [*x]", 1, 4, "an alias may not name what it stands in"),
        ("a: *nope", 1, 4, "undefined alias 'nope'"),
        ("b: 1\na: \x00", 2, 4, "#x00"),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "my.yaml")
    (fault,) = caught.value.faults
    assert says in fault.message
    assert (fault.line, fault.column) == (line, column)
    assert f"my.yaml:{line}:{column}: " in str(caught.value)


def test_aliases_repeat_plain_data() -> None:
    assert parse("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_bomb_of_aliases_ends_with_an_error() -> None:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    with pytest.raises(ConfigError, match="too large"):
        parse("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *levels]))


@pytest.mark.parametrize("text", ["- " * 150 + "1", "[" * 5000])
def test_deep_nesting_ends_with_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"nested|too large"):
        parse(text)


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 1,048,576 characters"):
        parse("a" * (1 << 20) + "a")


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("need", ("needs", "queue"), "; did you mean 'needs'?"),
        ("run-on", ("run_on", "queue"), "; did you mean 'run_on'?"),
        ("Queue", ("needs", "queue"), "; did you mean 'queue'?"),
        ("zzz", ("needs", "queue"), "; known: needs, queue"),
        ("zzz", (), ""),
        ("zzz", [str(number) for number in range(50)], ""),
    ],
)
def test_suggestions(word: str, known: tuple[str, ...], said: str) -> None:
    assert suggestion(word, known) == said


def test_paths_are_written_with_dots() -> None:
    assert dotted(("steps", "a b", "needs", 0)) == 'steps."a b".needs[0]'
