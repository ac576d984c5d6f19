"""`python -m services.gateway`."""

from libs.common.runtime.program import load

if __name__ == "__main__":
    load("services.gateway.process").run()
