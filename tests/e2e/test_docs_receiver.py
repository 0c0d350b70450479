"""The fixture `hookline_receiver` as its users have it: found by its entry point, in the example of the documentation, against a running service."""

import asyncio
import os
import re
import sys
import tomllib
from pathlib import Path

from tests.support.service import ROOT, Service, token

EXAMPLE = re.compile(r"^```python\n([^`]*?hookline_receiver[^`]*?)^```", re.MULTILINE)


def installed(folder: Path) -> None:
    """What an installer makes of pyproject.toml's entry point."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    about = folder / "receiver_as_installed-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: receiver-as-installed\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pytest11]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))


async def test_the_example_passes(tmp_path: Path) -> None:
    (example,) = EXAMPLE.findall((ROOT / "docs/webhooks-receiving.md").read_text())
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_example.py").write_text(example)
    installed(tests)
    async with Service(tmp_path / "service", {}) as service:
        environment = os.environ | {
            "HOOKLINE_URL": service.url,
            "HOOKLINE_TOKEN": token(),
            "PYTHONPATH": f"{tests}{os.pathsep}{ROOT}",
        }
        pytest_ = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "test_example.py",
            cwd=tests, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(pytest_.communicate(), 60)
    assert "1 passed" in said.decode(), said.decode()
