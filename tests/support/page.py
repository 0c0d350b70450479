"""A page of the documentation whose console blocks are run as a reader would, and whose shown output must fit."""

import asyncio
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_OTHER_BLOCK = re.compile(r"^```(?:sh|bash|shell)$", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
GAP = "…"
"""Stands for anything within a line; alone on a line, for any number of lines."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and the lines that the page shows after it (none: whatever it says is well)."""

    command: str
    shown: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)


def sections(page: Path) -> dict[str, list[Step]]:
    """Heading (of level 2; empty for what is before the first) → its commands, in order; sections without any are left out."""
    found: dict[str, list[Step]] = {}
    for number, part in enumerate(re.split(r"^## ", page.read_text(), flags=re.MULTILINE)):
        steps = [step for block in _BLOCK.findall(part) for step in _steps(block)]
        if steps:
            found[part.splitlines()[0] if number else ""] = steps
    return found


def unfollowed(page: Path, programs: tuple[str, ...]) -> set[str]:
    """The commands of these programs that the page names outside of its console blocks: in running text, in tables, in blocks of other kinds."""
    text = page.read_text()
    assert not _OTHER_BLOCK.search(text), "commands stand in console blocks"
    return {code for code in _INLINE.findall(_BLOCK.sub("", text)) if code.split()[0] in programs}


def _steps(block: str) -> list[Step]:
    assert block.startswith("$ "), f"a console block begins with a command:\n{block}"
    return [
        Step(command=lines[0], shown=tuple(lines[1:])) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] for lines in [part.splitlines()]
    ]


def fits(shown: tuple[str, ...], said: str) -> bool:
    """Whether the output is what the page shows; spaces at the ends of lines do not count."""
    pattern = "".join(r"(?:.*\n)*" if line.strip() == GAP else _line(line) + r"\n" for line in shown)
    text = "".join(f"{line.strip()}\n" for line in said.strip().splitlines())
    return not shown or re.fullmatch(pattern, text) is not None


def _line(shown: str) -> str:
    return r"[^\n]*".join(re.escape(part) for part in shown.strip().split(GAP))


class Shell:
    """A bash whose exported variables outlive each command, as in a reader's terminal."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._state = folder / "exported"
        self._state.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environ.items()))
        self._folder = folder

    def export(self, name: str, value: str) -> None:
        with self._state.open("a") as file:
            file.write(f"export {name}={shlex.quote(value)}\n")

    async def run(self, command: str, *, seconds: float = 30.0) -> tuple[int, str]:
        """The exit code and all it said."""
        script = f'set -o pipefail; . "{self._state}"\n{command}\ncode=$?; export -p > "{self._state}"; exit $code'
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await asyncio.wait_for(process.communicate(), seconds)
        assert process.returncode is not None
        return process.returncode, said.decode()
