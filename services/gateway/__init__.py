"""The data plane: forwards `/v1`. Its durable state is a journal of what SQL does not
have yet, up to PROXY_JOURNAL_MAX_BYTES (docs/architecture.md)."""
