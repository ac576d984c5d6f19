"""Ids and sealed blobs carry their account."""

import pytest

from libs.simulator.state.ids import Mint, account_tag, origin, seal_tag

ONE, TWO = Mint("acct-1"), Mint("acct-2")


@pytest.mark.parametrize("prefix", ["resp", "conv", "rs", "msg", "fc", "cmp"])
def test_a_minted_id_has_the_services_form(prefix: str) -> None:
    head, _, body = ONE.new_id(prefix).rpartition("_")
    assert head == prefix
    assert len(body) == 50
    assert set(body) <= set("0123456789abcdef")


@pytest.mark.parametrize("stored", [True, False])
def test_a_minted_id_tells_its_account_and_whether_it_was_stored(
    stored: bool,
) -> None:
    found = origin(ONE.new_id("msg", stored=stored))
    assert found is not None
    assert found.tag == account_tag("acct-1") != account_tag("acct-2")
    assert found.stored is stored


@pytest.mark.parametrize(
    "made_up",
    [
        pytest.param("msg_0198c2a4-7f21-7c3e-9c1a-1f2e3d4c5b6a", id="a client's uuid"),
        pytest.param("rs_" + "0" * 50, id="right length, wrong check"),
        pytest.param("", id="empty"),
    ],
)
def test_an_id_made_by_a_client_has_no_origin(made_up: str) -> None:
    assert origin(made_up) is None


def test_a_seal_looks_like_the_real_one_and_names_its_account() -> None:
    sealed = TWO.seal()
    assert sealed.startswith("gAAAA")
    assert seal_tag(sealed) == account_tag("acct-2")
    assert sealed != TWO.seal()


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("", id="empty"),
        pytest.param("not base64!", id="no base64"),
        pytest.param("gAAAAABo", id="too short"),
        pytest.param("é", id="no ascii"),
        pytest.param("A" + ONE.seal()[1:], id="changed"),
    ],
)
def test_a_broken_seal_names_nobody(broken: str) -> None:
    assert seal_tag(broken) is None
