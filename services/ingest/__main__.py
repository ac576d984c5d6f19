"""`python -m services.ingest`."""

from libs.common.runtime.program import load

if __name__ == "__main__":
    load("services.ingest.app").run()
