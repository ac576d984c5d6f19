"""The catalogue: what older gateways read, and its pools."""

from libs.common.contracts.catalogue import Catalogue
from tests.support.values.catalogues import made_resource


def test_what_a_newer_router_publishes_is_read_by_an_older_gateway() -> None:
    resource = made_resource().model_dump() | {"surprise": 1}
    catalogue = {"version": "v", "resources": [resource], "surprise": 1}
    assert Catalogue.model_validate(catalogue).resources == (made_resource(),)


def test_a_catalogue_of_before_aliases_is_read() -> None:
    assert Catalogue.model_validate({"version": "v", "resources": []}).aliases == ()


def test_pools_are_each_told_once() -> None:
    resources = [made_resource(str(n), pool_id=p) for n, p in enumerate("bab")]
    resources.append(made_resource("none", pool_id=None))
    assert Catalogue(version="v", resources=tuple(resources)).pools == ("a", "b")
