"""`python -m services.health`."""

from libs.common.runtime.program import load

if __name__ == "__main__":
    load("services.health.app").main()
