"""Lists in files of their own: what is no list is told, and its content is not."""

from __future__ import annotations

import pytest

from guardrail.errors import PolicyError
from guardrail.loading import load_policies

POLICY = """\
guardrail: 1
policy: lists
facts: {account.seats: {type: integer, source: server}}
lists: {named: {file: %s}}
rules:
  - {id: r, when: {%s}, block: {}}
"""
USES = {
    "countries": "geo.country: {in: $named}",
    "networks": "client.ip: {cidr: $named}",
    "numbers": "account.seats: {in: $named}",
    "words": "enforcement.status: {not_in: $named}",
}
SECRETS = "root:x:0:0:CANARY:/root:/bin/sh\nTOKEN=CANARY\n-----BEGIN CANARY KEY-----\nDE\n"


def problems(folder, file, use):
    (folder / "policy.yaml").write_text(POLICY % (file, USES[use]))
    with pytest.raises(PolicyError) as caught:
        load_policies([folder])
    return str(caught.value)


@pytest.mark.parametrize("use", USES)
def test_no_line_of_a_file_that_is_no_list_is_shown(tmp_path, use):
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "passwd"
    secret.write_text(SECRETS)
    folder = tmp_path / "policies"
    folder.mkdir()

    for file in (secret, "../outside/passwd"):
        told = problems(folder, file, use)
        assert "CANARY" not in told
        assert "the file of list `named` is no list of values for" in told
        assert told.count("GR102") == 1


def test_a_wrong_line_of_a_list_is_shown_where_it_stands(tmp_path):
    (tmp_path / "places.txt").write_text("DE\nFR\nXX # nowhere\nUS\n")
    told = problems(tmp_path, "places.txt", "countries")

    assert "places.txt:3:1" in told
    assert "`XX` is not a country" in told
