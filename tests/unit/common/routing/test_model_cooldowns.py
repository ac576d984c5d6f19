"""Cooldowns of models that the resources of an account share."""

import pytest

from libs.common.routing.account_limits import ASK_AGAIN_MS
from libs.common.routing.circuit_breaker import TRIAL_MS, Report
from libs.common.routing.model_cooldowns import MOST_COOLING, ModelCooldowns
from libs.common.upstream_answers.verdicts import Verdict, VerdictKind

NOW = 1_000_000.0
LONG = 5_000


def said(
    kind: VerdictKind,
    resource_id: str = "a1",
    *,
    by: str = "r",
    of_account: bool = False,
    ms: int = LONG,
) -> Report:
    siblings = [id_ for id_ in ("a1", "a2", "a3") if id_ != resource_id]
    return Report(resource_id, Verdict(kind=kind), ms, by, siblings, of_account)


def of_account() -> ModelCooldowns:
    kept = ModelCooldowns()
    kept.judge("m", said("limited", of_account=True), NOW)
    return kept


def test_the_limit_of_an_account_cools_all_its_resources() -> None:
    kept = of_account()
    assert {id_: c.until_ms for id_, c in kept["m"].items()} == dict.fromkeys(
        ("a1", "a2", "a3"), NOW + LONG
    )


def test_the_limit_of_a_key_cools_only_that() -> None:
    kept = ModelCooldowns()
    kept.judge("m", said("limited"), NOW)
    assert set(kept["m"]) == {"a1"}


def test_an_account_is_asked_once_a_second() -> None:
    kept = ModelCooldowns()
    kept.judge("m", said("limited", of_account=True, ms=20), NOW)
    assert kept["m"]["a2"].until_ms == NOW + ASK_AGAIN_MS
    kept.judge("other", said("limited", ms=20), NOW)
    assert kept["other"]["a1"].until_ms == NOW + 20


def test_a_longer_cooldown_stays() -> None:
    kept = ModelCooldowns()
    kept.judge("m", said("limited", "a2", ms=2 * LONG), NOW)
    kept.judge("m", said("limited", of_account=True), NOW)
    assert kept["m"]["a2"].until_ms == NOW + 2 * LONG
    assert not kept["m"]["a2"].shared


def test_a_trial_is_that_of_the_account() -> None:
    kept, later = of_account(), NOW + LONG
    kept.begin_trial("m", "a2", ["a1", "a3"], "trial", later)
    assert {c.ready_ms for c in kept["m"].values()} == {later + TRIAL_MS}
    kept.judge("m", said("ok", "a2", by="trial"), later)
    assert kept == {}


@pytest.mark.parametrize("kind", ["neutral", "refused"])
def test_a_trial_that_proves_nothing_is_followed_by_another(kind: VerdictKind) -> None:
    kept, later = of_account(), NOW + LONG
    kept.begin_trial("m", "a2", ["a1", "a3"], "trial", later)
    kept.judge("m", said(kind, "a2", by="trial"), later)
    assert {c.ready_ms for c in kept["m"].values()} == {NOW + LONG}


def test_a_failing_resource_cools_alone() -> None:
    kept, later = of_account(), NOW + LONG
    kept.begin_trial("m", "a2", ["a1", "a3"], "trial", later)
    kept.judge("m", said("fault", "a2", by="trial"), later)
    assert kept["m"]["a2"].until_ms == later + 2 * LONG
    assert {kept["m"][id_].ready_ms for id_ in ("a1", "a3")} == {NOW + LONG}
    kept.judge("m", said("ok", "a1"), later)
    assert set(kept["m"]) == {"a2"}


def test_others_change_nothing() -> None:
    kept = of_account()
    kept.begin_trial("m", "b", [], "trial", NOW)
    kept.begin_trial("other", "a1", [], "trial", NOW)
    kept.judge("m", said("ok"), NOW + 1)  # was under way before
    assert len(kept["m"]) == 3


def test_models_are_bounded() -> None:
    kept = ModelCooldowns()
    for number in range(MOST_COOLING + 1):
        kept.judge(f"m{number}", said("limited"), NOW)
    assert len(kept) == MOST_COOLING
    assert "m0" not in kept
