"""An S3-compatible server (moto) in a process of its own, on loopback."""

import os
import subprocess
import sys
from pathlib import Path

BUCKET = "documents-of-tests"


class ObjectStore:
    """Started and stopped as a context; `environment` is what a client needs to find it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def __enter__(self) -> "ObjectStore":
        # The port is chosen by the kernel; the server says which on the line that it is waited for.
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "false"},
        )  # fmt: skip
        assert self._process.stderr
        said = b""
        while b"Running on http://127.0.0.1:" not in said:
            line = self._process.stderr.readline()
            if not line:
                raise RuntimeError(f"the object store did not start: {said.decode(errors='replace')}")
            said += line
        url = said[said.rindex(b"http://") :].split()[0].decode()
        # Its log goes to a file from here on: a full pipe that nobody reads would stop it.
        with self._log.open("wb") as log, self._process.stderr as rest:
            self._drain = subprocess.Popen(["cat"], stdin=rest, stdout=log)
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self._drain.wait()
