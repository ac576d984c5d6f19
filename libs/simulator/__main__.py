"""`python -m libs.simulator`."""

import os

from libs.common.runtime.program import load

if __name__ == "__main__":
    # aiohttp loads them when it is imported, and nothing here connects anywhere.
    os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull
    load("libs.simulator.process").main()
