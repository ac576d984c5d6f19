"""`make fuzz`: runs all targets repeatedly with new examples until the time is up or
one fails."""

import os
import subprocess
import sys
import time

USUAL_S = 600
ROUND = {"FUZZ_EXAMPLES": "300"}  # per target
# The parsers, and two properties whose examples the suite keeps few.
SCANNER = "tests/unit/common/bodies/test_scanner.py"
POLICY = "tests/integration/routing/test_policy_agrees.py"
TARGETS = (
    "tests/fuzz",
    f"{SCANNER}::test_documents_are_judged_as_a_json_parser_does",
    f"{POLICY}::test_lua_and_python_agree_on_every_history",
)
OPTIONS = ("-q", "--no-header", "--timeout=3600", "-p", "no:cacheprovider")


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else USUAL_S
    ends, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < ends or not rounds:
        command = [sys.executable, "-m", "pytest", *OPTIONS, *TARGETS]
        failed = subprocess.run(command, env={**os.environ, **ROUND}, check=False)
        if failed.returncode:
            return failed.returncode
        rounds += 1
    print(f"{rounds} rounds of {ROUND['FUZZ_EXAMPLES']} examples for each target")
    return 0


if __name__ == "__main__":
    sys.exit(main())
