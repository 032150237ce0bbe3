"""A file or folder that cannot be read is found with what to do about it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.errors import Diagnostic, PolicyError
from guardrail.loading import load_text
from guardrail.loading.files import policy_files, read_text
from guardrail.loading.yaml import MAX_BYTES
from tests.loading.filing import folder, found, write

__all__ = ["folder"]

ENDINGS = "policy files end in `.yaml` or `.yml`; `guardrail init` writes a first one"


def wrong(*paths: str) -> Diagnostic:
    """Return the one thing that is wrong with some paths."""
    findings: list[Diagnostic] = []
    policy_files([Path(path) for path in paths], findings)
    assert len(findings) == 1, findings
    assert findings[0].code == "GR100"
    return findings[0]


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("missing", "check the path"),
        ("polices", "did you mean `policies`?"),
        ("policies/limts.yaml", "did you mean `limits.yaml`?"),
        ("nowhere/limits.yaml", "check the path"),
        ("\0", "check the path and the disk it is on"),
    ],
)
def test_a_missing_path_is_found_with_a_near_one(path, advice):
    write("policies/limits.yaml")

    finding = wrong(path)

    if path != "\0":
        assert finding.message == "there is no such file or folder"
        assert str(finding.span) == f"{path}:1:1"
    assert finding.help == advice


def test_a_folder_without_policies_is_an_error():
    write("p/README.md", "p/.hidden.yaml")

    finding = wrong("p")

    assert (str(finding.span), finding.excerpt) == ("p:1:1", None)
    assert (finding.message, finding.help) == ("there is no policy file in this folder", ENDINGS)


def test_each_folder_needs_a_file_but_only_one_a_policy():
    write("p/a.yaml", "t/a_test.yaml")
    Path("empty").mkdir()

    assert len(found("p", "t")) == 2
    assert wrong("p", "empty", "t").span.file == "empty"


def test_tests_alone_are_an_error():
    write("t/a_test.yaml")

    finding = wrong("t")

    assert finding.message == "there are only tests here, and no policy for them to test"
    assert finding.help == "name the policy's folder as well"


def test_a_link_to_nothing_is_an_error():
    write("p/a.yaml")
    Path("p/b.yaml").symlink_to("gone")
    Path("q").symlink_to("gone")

    for finding in (wrong("p"), wrong("q", "p/a.yaml")):
        assert finding.span.file in {"p/b.yaml", "q"}
        assert finding.message == "the link leads to a file that is not there"
        assert finding.help == "mend or remove the link"


def test_what_is_not_a_regular_file_is_not_waited_for():
    write("p/a.yaml")
    os.mkfifo("p/b.yaml")

    finding = wrong("p")

    assert (finding.span.file, finding.message) == ("p/b.yaml", "this is not a regular file")


def test_a_socket_is_not_read():
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.yaml")

        assert wrong("s.yaml").message.startswith("this cannot be read: ")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_a_read_that_fails_is_an_error():
    finding = wrong("/proc/self/mem")

    assert finding.message == "this cannot be read: input/output error"
    assert finding.help == "check the path and the disk it is on"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["p/a.yaml", "p"])
def test_what_may_not_be_read_is_an_error(closed):
    write("p/a.yaml")
    os.chmod(closed, 0)
    try:
        finding = wrong("p")
    finally:
        os.chmod(closed, 0o700)

    assert (finding.span.file, finding.message) == (closed, "this may not be read")
    assert finding.help == "let the user who runs guardrail read it"


def test_a_file_ends_at_one_mebibyte():
    Path("a.yaml").write_bytes(b"#" * MAX_BYTES)
    assert len(found("a.yaml")[0].text) == MAX_BYTES

    Path("a.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert wrong("a.yaml").message == "the file is larger than 1 MiB (1,048,576 bytes)"


def test_an_endless_file_is_read_to_its_bound_only():
    with open("a.yaml", "wb") as file:
        file.truncate(1 << 40)

    assert wrong("a.yaml").message == "the file is larger than 1 MiB (1,048,576 bytes)"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_other_unicode_encodings_are_named(encoding):
    Path("a.yaml").write_text("guardrail: 1\n", encoding)

    finding = wrong("a.yaml")

    assert finding.message == "the file is not UTF-8 text; it looks like UTF-16 or UTF-32"
    assert finding.help == "save it as UTF-8"


def test_a_binary_file_is_not_text():
    Path("a.yaml").write_bytes(b"\x7fELF\x02\x01\x01\0\0")

    finding = wrong("a.yaml")

    assert finding.message == "the file is not text: it holds zero bytes"
    assert finding.help == "name a text file, saved as UTF-8"


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_not_utf8_is_shown_in_its_line(start):
    Path("a.yaml").write_bytes(start + b"# \xc3\xa9\r\nname: caf\xe9\nb: \xff\n")

    finding = wrong("a.yaml")

    assert (str(finding.span), finding.excerpt) == ("a.yaml:2:10", "name: caf\ufffd")
    assert finding.message == "the byte 0xe9 here is not UTF-8"
    assert finding.help == "save the file as UTF-8"


def test_what_is_wrong_with_one_file_does_not_hide_the_others():
    write("p/a.yaml", "p/d.yaml")
    Path("p/b.yaml").write_bytes(b"\xff")
    Path("p/c.yaml").symlink_to("gone")
    findings: list[Diagnostic] = []

    files = policy_files([Path("p"), Path("missing")], findings)

    assert [file.relative for file in files] == ["a.yaml", "d.yaml"]
    assert {finding.span.file for finding in findings} == {"p/b.yaml", "p/c.yaml", "missing"}


def test_a_text_beside_the_policies_is_read_under_the_same_rules():
    Path("orgs.txt").write_bytes(b"\xef\xbb\xbforg-1\n")
    findings: list[Diagnostic] = []

    assert read_text(Path("orgs.txt"), "lists/orgs.txt", findings) == "org-1\n"
    assert findings == []
    assert read_text(Path("gone.txt"), "lists/gone.txt", findings) is None
    assert [str(finding.span) for finding in findings] == ["lists/gone.txt:1:1"]


@given(st.binary(max_size=200))
@example(b"\xed\xa0\x80")
@example(b"\xef\xbb\xbf\xff")
@example(b"a\r\xc0\x80")
def test_no_bytes_make_it_raise(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "a.yaml"
    path.write_bytes(data)
    findings: list[Diagnostic] = []

    files = policy_files([path], findings)

    assert len(files) + len(findings) == 1
    assert all(file.data == data for file in files)


@pytest.mark.parametrize(
    ("written", "what"),
    [("5", "a number"), ("true", "true"), ("[a]", "a list"), ("{a: b}", "a map"), ("null", "")],
)
def test_a_list_whose_file_is_no_path_is_reported(written, what):
    text = f"""
guardrail: 1
policy: p
lists: {{blocked: {{file: {written}}}}}
rules: [{{id: r, when: {{geo.country: {{in: $blocked}}}}, block: {{}}}}]
"""
    with pytest.raises(PolicyError, match=f"GR102 `file` must be a path, not .*{what}"):
        load_text(text)
