"""The simulated upstream: a stateful stand-in for the OpenAI Responses API."""
