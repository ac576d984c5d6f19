"""The result of a check, and what checks share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Self

from libs.cli.observe import observe
from libs.cli.plan import Seen
from libs.common.errors import ProxyError, SettingError
from libs.common.settings.base import CommonSettings


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"  # `up` starts all the same, and waits or works without it
    REFUSED = "refused"  # `up` does not start


MARKS = {Level.OK: "ok", Level.WARNING: "WARN"}


@dataclass(frozen=True)
class Finding:
    """One line of doctor's report. `fix` is empty if the check passed."""

    subject: str
    state: str
    fix: str = ""
    level: Level = Level.OK

    @classmethod
    def failed(cls, subject: str, state: str, fix: str) -> Self:
        return cls(subject, state, fix, Level.FAILED)

    @classmethod
    def refused(cls, error: SettingError) -> Self:
        """The line is the message of `error`."""
        return cls(error.variable, error.problem, error.fix, Level.REFUSED)

    @classmethod
    def warning(cls, error: SettingError) -> Self:
        return cls(error.variable, error.problem, error.fix, Level.WARNING)

    def __str__(self) -> str:
        line = f"{MARKS.get(self.level, 'FAIL'):<5} {self.subject}: {self.state}"
        return f"{line}. {self.fix}" if self.fix else line


class Refused(ProxyError):
    """Settings with which nothing is started."""

    def __init__(self, problems: Sequence[SettingError]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


class Context:
    """What the checks examine. `environ` has no NAME_FILE any more: see
    libs.common.settings.secret_files. `running` says that ports and data may be in use
    by a running proxy with these settings."""

    def __init__(
        self, environ: Mapping[str, str], patience_s: float, *, running: bool = False
    ) -> None:
        self.environ = environ
        self.patience_s = patience_s  # for each server
        self.running = running

    @cached_property
    def settings(self) -> CommonSettings:
        return CommonSettings.read(self.environ)

    @cached_property
    def seen(self) -> Seen:
        """What answers at Redis's default address, and a free port."""
        return observe(CommonSettings.read({}).redis_url, self.settings.redis_keys)


Check = Callable[[Context], Iterator[Finding]]


def refuse(checks: Sequence[Check], context: Context) -> None:
    """Raise `Refused` with the findings of the first check that refuses."""
    for check in checks:
        refused = [f for f in check(context) if f.level is Level.REFUSED]
        if refused:
            raise Refused([SettingError(f.subject, f.state, f.fix) for f in refused])
