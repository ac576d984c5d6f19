"""The tables of docs/capacity.md are what `python -m bench.capacity` computes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.capacity import RATES, Mix, table, thresholds
from bench.parts.shards import simulate

ROOT = Path(__file__).resolve().parents[3]
DOC = (ROOT / "docs/capacity.md").read_text()


@pytest.mark.parametrize(
    "computed",
    [table(Mix(), RATES), thresholds(Mix())],
    ids=("needs", "full"),
)
def test_a_table_is_the_computed_one(computed: str) -> None:
    assert f"\n{computed}\n" in DOC


def test_the_simulation_has_the_documented_result() -> None:
    found = simulate(6)
    row = "| 6 | of 20 requests | {:.2f} | {:.2f} |"
    assert row.format(found.busiest_shard, found.busiest_key) in DOC


def test_the_command_computes_another_mix() -> None:
    (command,) = re.findall(r"^```sh\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", command.replace(".venv/bin/python", sys.executable)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("| requests a minute |  | 500 | 20,000 |\n")
    assert "in flight | rate * 30 s | 250 | 10,000 |" in done.stdout
