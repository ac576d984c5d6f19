"""The bill of materials of an image, from its inventory."""

import copy
import json
from typing import Any

import pytest

from scripts.sbom import sbom

INVENTORY: dict[str, Any] = {
    "programs": {"cpython": "3.13.5", "valkey": "9.1.2"},
    "python": [
        {"name": "responses_proxy", "version": "0.2.0", "license": None},
        {"name": "Psycopg_Binary", "version": "3.3.1", "license": "LGPL-3.0-only"},
        {"name": "odd", "version": "1", "license": "A license of its own"},
    ],
    "debian": [{"name": "libc6", "version": "2.41-12", "architecture": "amd64"}],
    "release": "trixie",
}


def parts(inventory: dict[str, Any]) -> dict[str, dict[str, Any]]:
    document = json.loads(sbom(inventory))
    return {part["bom-ref"]: part for part in document["components"]}


def test_it_names_each_part_by_its_address() -> None:
    found = parts(INVENTORY)

    assert found["python:psycopg-binary"]["purl"] == "pkg:pypi/psycopg-binary@3.3.1"
    assert found["debian:libc6:amd64"]["purl"] == (
        "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=trixie"
    )
    assert found["program:valkey"]["version"] == "9.1.2"


def test_licenses_are_as_stated_and_ours_is_not_chosen() -> None:
    found = parts(INVENTORY)

    assert found["python:psycopg-binary"]["licenses"] == [
        {"license": {"id": "LGPL-3.0-only"}}
    ]
    assert found["python:odd"]["licenses"][0]["license"]["name"].startswith("A license")
    assert "licenses" not in found["python:responses-proxy"]


def test_the_same_inventory_gives_the_same_document() -> None:
    assert sbom(INVENTORY) == sbom(copy.deepcopy(INVENTORY))
    other = {**INVENTORY, "release": "forky"}
    assert sbom(other) != sbom(INVENTORY)
    assert "timestamp" not in sbom(INVENTORY)


def test_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="of another image"):
        sbom({**INVENTORY, "python": []})
