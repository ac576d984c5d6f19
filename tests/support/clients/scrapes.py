"""Answers of /metrics, read as Prometheus does."""

import subprocess

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes.debian import program

Labels = tuple[tuple[str, str], ...]


class Scraped:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kinds: dict[str, str] = {}  # by the family's name
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have at least these labels; 0 if
        there is none."""
        return sum(
            value
            for (found, having), value in self.samples.items()
            if found == name and labels.items() <= dict(having).items()
        )

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    @property
    def described(self) -> set[str]:
        """The names of samples that there are or may be."""
        endings = {
            "counter": ("_total",),
            "gauge": ("",),
            "histogram": ("_bucket", "_sum", "_count"),
            "summary": ("_sum", "_count"),
        }
        return {
            name + ending
            for name, kind in self.kinds.items()
            for ending in endings.get(kind, ("",))
        }


async def scraped(origin: str) -> Scraped:
    async with httpx.AsyncClient(timeout=10) as http:
        answer = await http.get(f"{origin}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scraped(answer.text)


def lint(text: str) -> list[str]:
    """What `promtool check metrics` says about names, types and help texts."""
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if line]
