"""Options and output of the commands over the admin API."""

from pathlib import Path

import pytest

from libs.cli.admin.options import open_api, print_json
from libs.common.errors import SettingError


def test_json_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "é"})
    assert capsys.readouterr().out == '{\n  "name": "é"\n}\n'


def test_the_environment_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROXY_DATA_DIR", str(tmp_path))
    with open_api("http://127.0.0.1:1", None):
        pass
    monkeypatch.setenv("PROXY_PORT", "x")
    with pytest.raises(SettingError, match="PROXY_PORT"):
        open_api(None, None)
