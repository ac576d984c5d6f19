"""Runs on the instance: receives the environment of the service, and starts it.

The environment arrives encrypted for a key that the instance makes, because commands
and their output may be logged on the way. Needs only `cryptography`, so that this file
works alone.

    on_instance.py key KEY                  make a key in KEY, print its public half
    on_instance.py write KEY SEALED TARGET  decrypt SEALED into TARGET
    on_instance.py run COMMAND ...          become the service (systemd starts it)
"""

import json
import os
import sys
import zlib
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32  # of X25519


def seal(data: bytes, public_key: str) -> bytes:
    """Encrypt `data` for the holder of the key: our public key, then a Fernet token."""
    ours = X25519PrivateKey.generate()
    theirs = X25519PublicKey.from_public_bytes(urlsafe_b64decode(public_key))
    sender = ours.public_key().public_bytes_raw()
    token = _cipher(ours.exchange(theirs), sender).encrypt(zlib.compress(data))
    return sender + token


def unseal(sealed: bytes, private_key: bytes) -> bytes:
    """The reverse of `seal`."""
    sender, token = sealed[:KEY_BYTES], sealed[KEY_BYTES:]
    ours = X25519PrivateKey.from_private_bytes(private_key)
    shared = ours.exchange(X25519PublicKey.from_public_bytes(sender))
    return zlib.decompress(_cipher(shared, sender).decrypt(token))


def _cipher(shared: bytes, sender: bytes) -> Fernet:
    derived = HKDF(SHA256(), KEY_BYTES, salt=sender, info=b"responses-proxy").derive(
        shared
    )
    return Fernet(urlsafe_b64encode(derived))


def make_key(path: Path) -> str:
    """Write a private key to `path` and return the public half."""
    key = X25519PrivateKey.generate()
    write_private(path, key.private_bytes_raw())
    return urlsafe_b64encode(key.public_key().public_bytes_raw()).decode()


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, at once or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    partial.rename(path)


def run(command: list[str]) -> None:
    """Become `command`, the service. systemd hands over the file of `write` as a
    credential, so the service needs no right to read it."""
    credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
    deployment = json.loads((credentials / "deployment").read_bytes())
    environment = {**os.environ, **deployment["environment"]}
    for variable, content in deployment["files"].items():
        copy = Path(os.environ["RUNTIME_DIRECTORY"]) / variable.lower()
        write_private(copy, b64decode(content))
        environment[variable] = str(copy)
    os.execve(command[0], command, environment)  # noqa: S606 - no shell wanted


def main(arguments: list[str]) -> None:
    action, *rest = arguments
    if action == "key":
        sys.stdout.write(make_key(Path(rest[0])))
    elif action == "write":
        private_key, sealed, target = map(Path, rest)
        data = unseal(sealed.read_bytes(), private_key.read_bytes())
        write_private(target, data)
    else:
        run(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
