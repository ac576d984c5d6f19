"""Where the keys of a provider come from."""

from pathlib import Path
from typing import Any

import pytest

from libs.cli.admin.credentials import (
    has_key_source,
    read_key,
    source_problems,
    with_sources,
    without_sources,
)
from libs.cli.admin.kinds import KEYS, PROVIDERS
from libs.cli.admin.schema import kind_schema
from libs.common.errors import ProxyError
from tests.support.values.openapi import openapi, schemas


def test_a_file_has_sources_instead_of_keys() -> None:
    fields = schemas()["providers"].fields
    assert {"api_key_env", "api_key_file", "credential_ref"} <= fields.keys()
    assert "api_key" not in fields
    keys = kind_schema(openapi(), KEYS)
    assert with_sources(KEYS, keys) is keys


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"credential_ref": "env:A"}, []),
        ({"credential_ref": None, "api_key_env": "A"}, []),
        ({"api_key": "sk-1"}, [("keys are not written here; give credential_ref, "
                               "api_key_env or api_key_file")]),
        ({"api_key_env": "A", "api_key_file": "b"},
         ["api_key_env and api_key_file exclude each other"]),
    ],
)  # fmt: skip
def test_one_source_is_given(fields: dict[str, Any], texts: list[str]) -> None:
    assert [p.text for p in source_problems(PROVIDERS, fields, ())] == texts
    assert list(source_problems(KEYS, fields, ())) == []


def test_sources_are_not_sent() -> None:
    fields = {"id": "a", "api_key_env": "A"}
    assert has_key_source(fields)
    assert without_sources(fields) == {"id": "a"}
    assert not has_key_source({"credential_ref": "env:A"})


def test_keys_are_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1,sk-2\n")
    assert read_key({"api_key_file": "key"}, {}, tmp_path) == "sk-1,sk-2"
    assert read_key({"api_key_env": "A"}, {"A": " sk-3 "}, tmp_path) == "sk-3"


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"api_key_env": "A"}, "api_key_env: the variable A is not set"),
        ({"api_key_file": "none"}, "No such file"),
        ({"api_key_file": "empty"}, "is empty or longer than"),
        ({"api_key_file": "binary"}, "is not text"),
    ],
)
def test_a_source_without_a_key(
    tmp_path: Path, fields: dict[str, str], cause: str
) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ProxyError, match=cause):
        read_key(fields, {"A": " "}, tmp_path)
