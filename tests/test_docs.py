"""The documents: every example in them runs, and prints what it shows.

`python` blocks run in order, in one namespace a document; `console` blocks (commands after `$ `,
going on after `> ` or a backslash, with what they print below) and `sh` blocks (commands only)
run in a shell; `yaml` blocks that start with `guardrail: 1` are loaded, and the tests in them
run. All of it happens in a copy of the policies and examples, and `guardrail` is imported once for
all commands. In shown output `…` stands for any
text within a line and, alone on its line, for any number of lines.
"""

from __future__ import annotations

import contextlib
import filecmp
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from guardrail import Guard
from guardrail.cli import main as guardrail
from tests.preloaded import preloaded

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))

SHOWN = frozenset({"", "diff", "http", "ini", "json", "jsonl", "mermaid", "text", "toml"})
"""The languages of blocks that are only shown; any other but the four above is a mistake."""

NOT_RUN = frozenset({"cd", "curl", "docker", "git", "gunicorn", "make", "pip", "uvicorn"})
"""Commands that install, serve or need a checkout; `make demo` alone is run, as what it does."""

PROGRAMS_BEFORE: list[str] = []
"""Folders of programs that come before those of the environment."""

FENCE = re.compile(r"^( *)(`{3,})([\w-]*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
MARK = "\x1e"


class Block(NamedTuple):
    """One fenced example: its language, its text without indentation, the line it starts on."""

    language: str
    text: str
    line: int


class Command(NamedTuple):
    """One command of a console block and the output shown below it."""

    text: str
    shown: str

    @property
    def runs(self) -> bool:
        return self.text.split()[0] not in NOT_RUN or self.text == "make demo"


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced examples of a document."""
    for found in FENCE.finditer(text):
        indent, _, language, body = found.groups()
        body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        yield Block(language, body, text.count("\n", 0, found.start(4)) + 1)


def commands(text: str) -> list[Command]:
    """Return the commands of a console block, each with the output shown for it."""
    first, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not first.strip(), "a console block starts with `$ `"
    found = []
    for part in parts:
        lines = part.splitlines()
        end = 1
        while end < len(lines) and (lines[end - 1].endswith("\\") or lines[end].startswith("> ")):
            lines[end] = lines[end].removeprefix("> ")
            end += 1
        found.append(Command("\n".join(lines[:end]), "\n".join(lines[end:])))
    return found


def agrees(shown: str, printed: str) -> bool:
    """Tell whether printed output is what a document shows, `…` standing for what varies."""
    pattern = ""
    for line in shown.rstrip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += "[^\n]*".join(map(re.escape, line.rstrip().split("…"))) + r" *\n"
    return re.fullmatch(pattern, f"{printed.rstrip()}\n" if printed.strip() else "") is not None


@cache
def demo() -> str:
    """Return the first command of `make demo`."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    found = re.search(r"^demo:.*\n\t\$\(BIN\)/(.+) \$\(ARGS\)$", makefile, re.MULTILINE)
    assert found is not None, "the Makefile has no demo"
    return found[1]


@cache
def demonstration() -> subprocess.CompletedProcess[str]:
    """Do what `make demo` does: several documents show it, and it takes long."""
    return bash(demo(), ROOT)


def is_as_shipped(folder: Path) -> bool:
    """Tell whether the policies and the traffic of a folder are those of the project."""
    for part in ("policies", "examples/traffic"):
        there, shipped = (files_of(place / part) for place in (folder, ROOT))
        if there != shipped:
            return False
        if filecmp.cmpfiles(folder / part, ROOT / part, there, shallow=False)[0] != there:
            return False
    return True


def files_of(folder: Path) -> list[str]:
    """Return the files below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a reader would, the commands of `NOT_RUN` doing nothing.

    `make demo`, and what it does, print and answer what they did the first time.
    """
    idle = "".join(f"{name}() {{ :; }}\n" for name in sorted(NOT_RUN))
    shown = demo() in script.splitlines() and is_as_shipped(folder)
    if shown or "make demo" in script:
        done = demonstration()
        told = f"printf %s {shlex.quote(done.stdout)}; return {done.returncode}"
        idle += f'make() {{ [ "$1" != demo ] || {{ {told}; }} }}\n'
        if shown:
            script = re.sub(f"^{re.escape(demo())}$", "make demo", script, flags=re.MULTILINE)
    return bash(idle + script, folder)


def bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, with nothing of the environment of the tests but the path."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a reader with this home."""
    programs = [*PROGRAMS_BEFORE, str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        "PATH": os.pathsep.join(programs),
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def run_console(text: str, folder: Path) -> None:
    """Run the commands of a block in one shell and compare what each prints."""
    typed = commands(text)
    script = "".join(
        f"{command.text}\nstatus=$?; printf '{MARK}'; (exit $status)\n" for command in typed
    )
    printed = shell(script, folder).stdout.split(MARK)
    assert len(printed) == len(typed) + 1, f"the shell stopped: {printed[-1]}"
    for command, output in zip(typed, printed, strict=False):
        if command.runs and not agrees(command.shown, output):
            raise AssertionError(f"$ {command.text}\nprinted\n{output}")


def run_script(text: str, folder: Path) -> None:
    """Run a block of shell commands, each of which has to succeed."""
    done = shell(f"set -e\n{text}", folder)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}")


def load_policy(text: str, folder: Path) -> None:
    """Load a block that is a whole policy set, and run the tests it holds."""
    if not re.match(r"(?:#[^\n]*\n|\s)*guardrail: 1\b", text):
        return
    alone = folder / "shown"
    alone.mkdir()
    (alone / "policy.yaml").write_text(text, "utf-8")
    try:
        Guard.load(alone).close()
        if re.search(r"^tests:", text, re.MULTILINE):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                code = guardrail(["test", str(alone)])
            assert code == 0, f"exit code {code}\n{printed.getvalue()}"
    finally:
        shutil.rmtree(alone)


def run_document(text: str, folder: Path) -> None:
    """Run every example of a document, in a folder that holds what they need."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        try:
            if block.language == "python":
                source = "\n" * (block.line - 1) + block.text
                exec(compile(source, "<example>", "exec", dont_inherit=True), names)
            elif block.language == "console":
                run_console(block.text, folder)
            elif block.language == "sh":
                run_script(block.text, folder)
            elif block.language == "yaml":
                load_policy(block.text, folder)
            else:
                assert block.language in SHOWN, f"`{block.language}` blocks are not tested"
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"line {block.line}: {what}") from error


POLICY = """\
guardrail: 1
policy: shown
rules:
  - {id: closed, when: always, block: {}}
tests:
  - {name: nothing passes, facts: {account.id: a}, expect: block}
"""


@pytest.fixture(scope="module")
def _commands(tmp_path_factory):
    """Run `guardrail` in forks of one process: to import it takes longer than most commands."""
    folder = tmp_path_factory.mktemp("commands")
    with preloaded(folder, environment(folder)):
        PROGRAMS_BEFORE.append(str(folder))
        yield
        PROGRAMS_BEFORE.remove(str(folder))


@pytest.fixture
def workplace(_commands, tmp_path, monkeypatch):
    for name in ("policies", "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    # An example may leave what it shows in the temporary folder.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_runs_and_prints_what_it_shows(document, workplace):
    run_document(document.read_text("utf-8"), workplace)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(document):
    links = LINK.findall(FENCE.sub("", document.read_text("utf-8")))

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_example_program_runs(program, workplace):
    run_script(f"python examples/{program.name}", workplace)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nlines = [1]\n```\nthen\n```python\nassert lines == [1]\n```",
        "- indented:\n\n  ```python\n  if True:\n      pass\n  ```",
        "```console\n$ echo a; echo b >&2\na\nb\n$ false\n$ echo $?\n1\n```",
        "```console\n$ echo one \\\n  two\none two\n$ cat <<E\n> x\n> E\nx\n```",
        "```console\n$ echo took 12 ms\ntook … ms\n$ seq 9\n1\n…\n9\n```",
        "```console\n$ pip install something\nit is there\n$ uvicorn app:app\n```",
        "```sh\n# a comment\ngit clone x && cd x\necho a |\n  grep a\n```",
        "```yaml\nwhen: always\n```",
        f"```yaml\n{POLICY}```",
    ],
)
def test_right_examples_pass(text, workplace):
    run_document(text, workplace)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\n\n1 / 0\n```", "line 2: ZeroDivisionError"),
        ("```python\ndef f(:\n```", "SyntaxError"),
        ("a\n\n```console\n$ echo a\nb\n```", "line 4: .*\nprinted"),
        ("```console\n$ echo a\n```", "printed"),
        ("```console\n$ true\na\n```", "printed"),
        ("```console\n$ seq 3\n1\n…\n4\n```", "printed"),
        ("```console\n$ exit 0\n$ echo a\na\n```", "the shell stopped"),
        ("```console\necho a\n```", "starts with"),
        ("```sh\nfalse\ntrue\n```", "exit code 1"),
        ("```sh\nguardrail-that-is-not-there\n```", "exit code 127"),
        ("```bash\ntrue\n```", "`bash` blocks are not tested"),
        ("```yaml\n# all\nguardrail: 1\nrulez: []\n```", "PolicyError"),
        (f"```yaml\n{POLICY.replace('expect: block', 'expect: allow')}```", "nothing passes"),
    ],
)
def test_wrong_examples_are_found(text, complaint, workplace):
    with pytest.raises(AssertionError, match=complaint):
        run_document(text, workplace)
