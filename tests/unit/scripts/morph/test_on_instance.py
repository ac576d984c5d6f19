"""How the environment reaches the instance."""

import json
import os
import stat
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.fernet import InvalidToken

from scripts.morph import on_instance
from scripts.morph.on_instance import main, make_key, seal, unseal, write_private


def test_only_the_holder_of_the_key_can_open_it(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key")
    make_key(tmp_path / "other")
    sealed = seal(b"a secret" * 100, public)
    assert b"a secret" not in sealed
    assert unseal(sealed, (tmp_path / "key").read_bytes()) == b"a secret" * 100
    with pytest.raises(InvalidToken):
        unseal(sealed, (tmp_path / "other").read_bytes())
    with pytest.raises(InvalidToken):
        unseal(sealed[:-9] + b"AAAAAAAA=", (tmp_path / "key").read_bytes())


def test_a_private_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    previous = os.umask(0)
    try:
        write_private(path, b"one")
        write_private(path, b"two")
    finally:
        os.umask(previous)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_the_commands_agree_and_may_run_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, sealed, target = (str(tmp_path / n) for n in ("key", "sealed", "target"))
    main(["key", key])
    main(["key", key])  # the answer of the first was lost
    public = capsys.readouterr().out[-44:]
    Path(sealed).write_bytes(seal(b"data", public))
    main(["write", key, sealed, target])
    main(["write", key, sealed, target])
    assert Path(target).read_bytes() == b"data"


def test_run_becomes_the_service(tmp_path: Path) -> None:
    files = {"PROXY_PRICES_FILE": b64encode(b"prices").decode()}
    deployment = {"environment": {"PROXY_PORT": "9000"}, "files": files}
    (tmp_path / "deployment").write_text(json.dumps(deployment))
    show = "echo $PROXY_PORT; cat $PROXY_PRICES_FILE"
    done = subprocess.run(
        [sys.executable, on_instance.__file__, "run", "/bin/sh", "-c", show],
        env={
            "PATH": os.environ["PATH"],
            "CREDENTIALS_DIRECTORY": str(tmp_path),
            "RUNTIME_DIRECTORY": str(tmp_path / "runtime"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "9000\nprices"
