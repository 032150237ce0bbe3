"""Which files are found under a path, what they are called, and in which order."""

from __future__ import annotations

import os
from pathlib import Path

from tests.loading.filing import folder, found, write

__all__ = ["folder"]


def test_folders_are_searched_to_their_depth_in_the_order_of_relative_paths():
    write("p/b.yaml", "p/a/z.yml", "p/a.yaml", "p/Z.yaml", "p/é.yaml", "p/a/b/c.yaml", "p/a-b.yaml")

    assert [file.relative for file in found("p")] == [
        "Z.yaml",
        "a-b.yaml",
        "a.yaml",
        "a/b/c.yaml",
        "a/z.yml",
        "b.yaml",
        "é.yaml",
    ]


def test_a_file_is_named_as_the_path_given_leads_to_it(folder):
    write("p/a/b.yaml")

    for given_path, name in [
        ("p", "p/a/b.yaml"),
        ("p/a/b.yaml", "p/a/b.yaml"),
        (".", "p/a/b.yaml"),
        (str(folder), f"{folder}/p/a/b.yaml"),
    ]:
        assert [file.name for file in found(given_path)] == [name]


def test_a_file_holds_its_bytes_and_its_text():
    Path("a.yaml").write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\n")

    (file,) = found("a.yaml")

    assert file.data == b"\xef\xbb\xbfa: \xc3\xa9\r\n"
    assert file.text == "a: é\r\n"
    assert file.path.read_bytes() == file.data


def test_only_yaml_files_that_are_not_left_over_by_editors_count():
    write("p/a.yaml", "p/README.md", "p/b.yaml~", "p/c.json", "p/yaml", "p/d.yaml.bak")
    write("p/.a.yaml", "p/.a.yaml.swp", "p/._a.yaml", "p/#a.yaml", "p/#a.yaml#", "p/~$a.yaml")
    write("p/.git/a.yaml", "p/..2026/a.yaml", "p/folder.yaml/b.yml")

    assert [file.relative for file in found("p")] == ["a.yaml", "folder.yaml/b.yml"]


def test_a_file_that_is_named_may_be_called_anything():
    write(".hidden", "policy.txt")

    assert [file.name for file in found("policy.txt", ".hidden")] == [".hidden", "policy.txt"]


def test_tests_are_told_from_policies():
    write("p/a.yaml", "p/a_test.yaml", "p/b_test.yml", "p/test_c.yaml", "p/atest.yaml")

    assert {file.relative: file.is_test for file in found("p")} == {
        "a.yaml": False,
        "a_test.yaml": True,
        "atest.yaml": False,
        "b_test.yml": True,
        "test_c.yaml": False,
    }


def test_a_file_reached_twice_counts_once():
    write("p/a.yaml", "p/b.yaml")
    Path("p/c.yaml").symlink_to("a.yaml")

    assert [file.name for file in found("p", "p/b.yaml", "./p", "p/../p")] == [
        "p/a.yaml",
        "p/b.yaml",
    ]


def test_files_mounted_through_double_links_count_once():
    write("p/..2026_03_01/a.yaml", "p/..2026_03_01/sub/b.yaml")
    Path("p/..data").symlink_to("..2026_03_01")
    Path("p/a.yaml").symlink_to("..data/a.yaml")
    Path("p/sub").symlink_to("..data/sub")

    assert [file.name for file in found("p")] == ["p/a.yaml", "p/sub/b.yaml"]


def test_links_that_lead_back_end():
    write("p/a/b.yaml")
    Path("p/a/up").symlink_to("..")
    Path("p/a/self").symlink_to("self")
    Path("p/loop").symlink_to("loop")

    assert [file.name for file in found("p")] == ["p/a/b.yaml"]


def test_names_that_are_not_text_are_shown_as_what_they_are():
    os.makedirs("p")
    with open(b"p/\xff.yaml", "w"), open("p/a\n\x1b.yaml", "w"):
        pass

    assert [file.name for file in found("p")] == ["p/a\u240a\u241b.yaml", "p/\ufffd.yaml"]
