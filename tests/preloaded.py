"""The command line of a process that has imported it, and forks for each command."""

from __future__ import annotations

import gc
import io
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# A shell starts it, as no path with a space stands after `#!`; to Python the lines are a text.
CLIENT = """\
#!/bin/sh
'''exec' "{python}" -ISs "$0" "$@"
' '''
import json, os, socket, sys
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(asked)
    code = server.recv(1)
    server.recv(1)  # The end of the process.
sys.exit(code[0] if code else 70)
"""


@contextmanager
def preloaded(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Put a `guardrail` into a folder, which has a process that is started now run commands.

    A command has the arguments, folder, environment and files of who starts it, but for what
    Python itself looks up in the environment as it starts.
    """
    address = str(folder / "socket")
    client = folder / "guardrail"
    client.write_text(CLIENT.format(python=sys.executable, address=address), "utf-8")
    client.chmod(0o755)
    program = f"from tests.preloaded import serve; serve({address!r})"
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.read(1) == b".", "the command line cannot be imported"
        yield folder


def unbuffered(file: int) -> io.TextIOWrapper:
    """Return a stream that writes at once, as Python's own do where it is told not to buffer."""
    raw = io.FileIO(file, "wb", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)


def serve(address: str) -> None:
    """Import the command line and fork for each command, until whoever started this is gone."""
    gc.disable()
    from guardrail.cli import main

    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b".")
        while True:
            ready, _, _ = select.select([listening.fileno(), 0], [], [])
            with suppress(ChildProcessError):
                while os.waitpid(-1, 0 if 0 in ready else os.WNOHANG)[0]:
                    pass
            if 0 in ready:
                return
            asking, _ = listening.accept()
            if not os.fork():
                break
            asking.close()
    head, files, *_ = socket.recv_fds(asking, 4, 3)
    with asking.makefile("rb") as sent:
        arguments, folder, environment = json.loads(sent.read(int.from_bytes(head, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # The old ones know whether what they stood on can seek.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout, sys.stderr = unbuffered(1), unbuffered(2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["guardrail", *arguments]
    code = main(arguments)
    asking.sendall(bytes([code]))
    # The socket is closed with the process, after all else that it does at its end.
    asking.detach()
