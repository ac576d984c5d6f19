"""Deploys the service to Morph. docs/deploy-morph.md describes it.

uv run --extra deploy python scripts/deploy_service.py --dry-run
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

COMMAND = "uv run --extra deploy python scripts/deploy_service.py"
UNUSABLE = 2

if __name__ == "__main__":
    # The checkout instead of this folder, so that `scripts` and `libs` are packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    if missing := [m for m in ("morphcloud", "pydantic") if not find_spec(m)]:
        print(f"{missing[0]}: is not installed. Run: {COMMAND}", file=sys.stderr)
        sys.exit(UNUSABLE)
    # The SDK's 32 connection pools would each load the certificates: 2 s of CPU time.
    os.environ.setdefault("MORPH_HTTP_TRANSPORT_SHARDS", "1")
    sys.exit(import_module("scripts.morph.main").main())
