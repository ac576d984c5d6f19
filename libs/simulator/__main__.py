"""`python -m libs.simulator`."""

from libs.common.runtime.program import load

if __name__ == "__main__":
    load("libs.simulator.process").main()
