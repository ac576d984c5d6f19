"""What `up` passes to the readiness listener, in `run/briefing.json`. A module of its
own because the listener must import very little."""

import json
from pathlib import Path
from typing import NamedTuple, Self

FILE = "briefing.json"


class Briefing(NamedTuple):
    """What the listener waits for, and prints."""

    started_at: float  # Unix time
    choices: list[list[str]]
    addresses: dict[str, str]  # service -> URL
    logs: str
    token_dir: str | None = None  # of the token file, if `up` keeps the token

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        return cls(**json.loads((run_dir / FILE).read_text()))

    def write(self, run_dir: Path) -> None:
        (run_dir / FILE).write_text(json.dumps(self._asdict()))
