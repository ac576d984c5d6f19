"""Turns an inventory of an image into its bill of materials:
`python -m scripts.sbom <INVENTORY >SBOM`. `make sbom` runs this.

The output is CycloneDX 1.6 JSON, validated against the strict schema. The same
inventory gives the same document: it has no time, and its serial number is a hash."""

import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

OURS = "responses-proxy"
VERSION = SchemaVersion.V1_6
NAMESPACE = uuid.UUID("6f1c6a3e-3f0b-5c56-9f0e-0d6a5a1b7c11")


def sbom(inventory: Mapping[str, Any]) -> str:
    """Raises ValueError if the inventory is not one of this product's image."""
    ours = [p for p in inventory["python"] if normalized(p["name"]) == OURS]
    if not ours:
        raise ValueError(f"the inventory has no {OURS}: it is of another image")
    image = Component(
        name=OURS,
        version=ours[0]["version"],
        bom_ref="image",
        type=ComponentType.CONTAINER,
    )
    parts = list(components(inventory))
    bom = Bom(
        components=parts,
        serial_number=uuid.uuid5(NAMESPACE, json.dumps(inventory, sort_keys=True)),
    )
    bom.metadata.component = image
    bom.register_dependency(image, parts)
    written = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string()
    document = json.loads(written)
    document["metadata"].pop("timestamp", None)
    text = json.dumps(document, indent=1, sort_keys=True)
    # Here, because its import builds grammars for 1.5 s, which the collection of tests
    # would also take.
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    problem = JsonStrictValidator(VERSION).validate_str(text)
    if problem is not None:
        raise ValueError(f"not a valid bill of materials: {problem}")
    return text


def components(inventory: Mapping[str, Any]) -> Iterator[Component]:
    for package in inventory["python"]:
        name, version = normalized(package["name"]), package["version"]
        yield Component(
            name=name,
            version=version,
            bom_ref=f"python:{name}",
            type=ComponentType.LIBRARY,
            licenses=licenses(package["license"]),
            purl=PackageURL("pypi", None, name, version),
        )
    for package in inventory["debian"]:
        name, version = package["name"], package["version"]
        qualifiers = {"arch": package["architecture"], "distro": inventory["release"]}
        yield Component(
            name=name,
            version=version,
            bom_ref=f"debian:{name}:{package['architecture']}",
            type=ComponentType.LIBRARY,
            purl=PackageURL("deb", "debian", name, version, qualifiers),
        )
    for name, version in inventory["programs"].items():
        yield Component(
            name=name,
            version=version,
            bom_ref=f"program:{name}",
            type=ComponentType.APPLICATION,
        )


def licenses(stated: str | None) -> list[License]:
    return [LicenseFactory().make_from_string(stated)] if stated else []


def normalized(name: str) -> str:
    """The name as package indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    try:
        print(sbom(json.load(sys.stdin)))
    except ValueError as error:
        sys.exit(f"sbom: {error}")
