"""The simulated upstream as a process."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from libs.common.runtime.json_lines import Formatter, json_line
from libs.simulator.server import serve
from libs.simulator.settings import DEFAULT_KEYS, Settings, parse_keys


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m libs.simulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4010, help="0 takes a free one")
    parser.add_argument(
        "--keys",
        type=parse_keys,
        default=dict(DEFAULT_KEYS),
        help="key=account,key=account; default sk-sim-1=acct-1 to sk-sim-4=acct-4",
    )
    parser.add_argument(
        "--any-key",
        action="store_true",
        help="accept every other key too, each an account of its own",
    )
    parser.add_argument(
        "--azure",
        action="store_true",
        help="speak as the v1 API of Azure OpenAI, below /openai/v1",
    )
    parser.add_argument(
        "--announce", type=Path, help="file that receives the base URL once listening"
    )
    return parser


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    settings = Settings(keys=options.keys, any_key=options.any_key, azure=options.azure)
    running = await serve(settings, options.host, options.port)
    try:
        if options.announce:
            _announce(options.announce, running.base_url)
        said = f"simulator listening on {running.base_url}"
        if not sys.stdout.isatty():
            said = json_line("simulator", "info", said, "simulator_started")
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await running.close()


def _announce(path: Path, base_url: str) -> None:
    # Renamed into place, so that no reader sees an incomplete line.
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(f"{base_url}\n")
    draft.replace(path)


def main() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("simulator"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    uvloop.run(run(arguments().parse_args()))
