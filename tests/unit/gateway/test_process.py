"""An invalid setting stops the start, with one line that names it."""

import pytest

from services.gateway.process import run


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"PROXY_PORT": "no number"}, "PROXY_PORT"),
        ({"PROXY_MAX_ATTEMPTS": "0"}, "PROXY_MAX_ATTEMPTS"),
        ({"HTTPS_PROXY": "socks5://x:1"}, "HTTPS_PROXY"),
    ],
)
def test_a_bad_setting_stops_the_start(
    environ: dict[str, str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(environ)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("responses-proxy: ")
    assert names in line
    assert line.count("\n") == 1
