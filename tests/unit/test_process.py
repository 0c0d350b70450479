"""What a process of the service does to itself at its start."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from pipeline.process import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "allowed"), [(256, 512, "512 512"), (512, 512, "512 512")])
def test_it_may_open_as_many_files_as_the_system_allows(soft: int, hard: int, allowed: str) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT.format(soft=soft, hard=hard)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == allowed
