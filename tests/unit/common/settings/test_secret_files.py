"""Secrets in files: NAME_FILE in place of NAME."""

import os
from pathlib import Path

import pytest

from libs.common.settings.secret_files import LARGEST, with_secret_files
from libs.common.settings.variables import SECRETS


@pytest.mark.parametrize("name", [*sorted(SECRETS), "OPENAI_API_KEY_1"])
def test_every_secret_can_be_in_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / "secret"
    file.write_text("hush-hush\n")
    given = {f"{name}_FILE": str(file), "PATH": "/bin"}
    assert with_secret_files(given) == ({name: "hush-hush", "PATH": "/bin"}, [])


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_the_line_break_at_the_end_is_not_part_of_it(
    tmp_path: Path, ending: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(f"hush hush{ending}".encode())
    merged, errors = with_secret_files({"PROXY_ADMIN_TOKEN_FILE": str(file)})
    assert (merged, errors) == ({"PROXY_ADMIN_TOKEN": "hush hush"}, [])


def test_a_list_of_keys_may_have_one_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-1,sk-2\n\nsk-3\n")
    merged, _ = with_secret_files({"OPENAI_API_KEYS_FILE": str(file)})
    assert merged == {"OPENAI_API_KEYS": "sk-1,sk-2,sk-3"}


def test_an_empty_value_counts_as_unset(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush-hush")
    name = "PROXY_ADMIN_TOKEN"
    assert with_secret_files({name: "x", f"{name}_FILE": ""}) == ({name: "x"}, [])
    merged, errors = with_secret_files({name: "", f"{name}_FILE": str(file)})
    assert (merged, errors) == ({name: "hush-hush"}, [])


def test_other_names_stay_as_they_are() -> None:
    given = {"PROXY_UPSTREAM_CA_FILE": "/x", "PROXY_PRICES_FILE": "/x", "_FILE": "/x"}
    assert with_secret_files(given) == (given, [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "names a file that cannot be read (No such file or directory)"),
        (b"", "names a file that is empty"),
        (b" \n", "names a file that is empty"),
        (b"hush\nhush\n", "names a file with 2 lines"),
        (b"hush\0hush", "names a file that contains a NUL character"),
        (b"\xff\xfehush", "names a file that is not UTF-8 text"),
        (b"x" * (LARGEST + 1), f"names a file larger than {LARGEST} bytes"),
    ],
)
def test_a_file_that_is_no_secret(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "hush"
    if content is not None:
        file.write_bytes(content)
    merged, (error,) = with_secret_files({"PROXY_REDIS_URL_FILE": str(file)})
    assert merged == {}
    assert str(error).startswith(f"PROXY_REDIS_URL_FILE: {says}. ")
    assert "hush" not in str(error)
    assert "\n" not in str(error)


def test_a_secret_in_the_place_of_its_file_is_not_printed() -> None:
    url = "postgresql://u:hush@h/d"
    _, (error,) = with_secret_files({"PROXY_DATABASE_URL_FILE": url})
    assert "hush" not in str(error)


def test_a_folder(tmp_path: Path) -> None:
    _, (error,) = with_secret_files({"PROXY_ADMIN_TOKEN_FILE": str(tmp_path)})
    assert "(Is a directory)" in str(error)


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("root reads every file")
    _, (error,) = with_secret_files({"PROXY_ADMIN_TOKEN_FILE": str(file)})
    assert "(Permission denied)" in str(error)


def test_both_are_refused_and_named(tmp_path: Path) -> None:
    given = {"OPENAI_API_KEY": "sk-hush", "OPENAI_API_KEY_FILE": str(tmp_path / "x")}
    _, (error,) = with_secret_files(given)
    assert str(error).startswith(
        "OPENAI_API_KEY_FILE: is set, and OPENAI_API_KEY is set too. "
    )
