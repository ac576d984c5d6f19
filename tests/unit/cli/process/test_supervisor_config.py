"""The configuration of supervisord, parsed by supervisord itself."""

from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from libs.cli.plan import RedisSeen, Seen, decide
from libs.cli.process.supervisor_config import render


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    data_dir = tmp_path / "with space"
    (data_dir / "logs").mkdir(parents=True)
    (data_dir / "run").mkdir()
    return data_dir


@pytest.fixture
def options(data_dir: Path) -> ServerOptions:
    seen = Seen(RedisSeen.ABSENT, simulator_port=7002, valkey="/v")
    path = data_dir / "run" / "supervisord.conf"
    path.write_text(render(decide({}, seen, data_dir), data_dir))
    options = ServerOptions()
    options.realize(["-n", "-c", str(path)])
    return options


def test_supervisord_reads_the_groups_in_their_order(options: ServerOptions) -> None:
    groups = sorted(options.process_group_configs, key=lambda group: group.priority)

    assert [group.name for group in groups] == ["watch", "base", "services", "front"]
    programs = {p.name for group in groups for p in group.process_configs}
    assert programs == {
        *("watch", "redis", "simulator"),
        *("ingest", "router", "health", "gateway"),
    }


def test_a_path_may_hold_spaces(options: ServerOptions, data_dir: Path) -> None:
    (front,) = [g for g in options.process_group_configs if g.name == "front"]

    assert front.process_configs[0].stdout_logfile == str(
        data_dir / "logs" / "gateway.log"
    )


def test_no_secret_is_in_the_file(data_dir: Path) -> None:
    environ = {
        "OPENAI_API_KEY": "sk-hush",
        "PROXY_REDIS_URL": "redis://:hush@h/0",
        "PROXY_DATABASE_URL": "postgresql://u:hush@h/d",
        "PROXY_ADMIN_TOKEN": "hush-hush-hush",
    }
    seen = Seen(RedisSeen.ABSENT, simulator_port=7002, valkey="/v")

    assert "hush" not in render(decide(environ, seen, data_dir), data_dir)
