"""Real clients at one address: `python -m tests.lab.clients URL`.

openai-python over HTTP, as a stream and over WebSocket, and Codex over WebSocket.
Prints the session of the Codex run. Fails with an exception."""

import sys
import tempfile
from pathlib import Path

from openai import OpenAI

from tests.support.clients.codex import BINARY, Codex

MODEL = "gpt-5.5"


def ask(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Say hello")
    assert "Simulated answer" in answer.output_text
    chained = client.responses.create(
        model=MODEL, input="And again", previous_response_id=answer.id
    )
    assert chained.previous_response_id == answer.id
    events = client.responses.create(model=MODEL, input="Say hello", stream=True)
    assert [event.type for event in events][-1] == "response.completed"
    with client.responses.connect() as socket:
        socket.response.create(model=MODEL, input="Say hello")
        kinds = []
        for event in socket:
            kinds.append(event.type)
            if event.type == "response.completed":
                break
    assert kinds[0] == "response.created"


def main(url: str) -> None:
    ask(OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0))
    with tempfile.TemporaryDirectory() as home:
        turn = Codex(f"{url}/v1", Path(home), "true").exec("please run-tool")
    assert turn.status == 0, turn.shown
    assert "Simulated answer" in turn.said, turn.shown
    sys.stdout.write(f"{turn.session}\n")


if __name__ == "__main__":
    if not BINARY.exists():
        sys.exit("Codex is not installed: make setup-codex")
    main(sys.argv[1])
