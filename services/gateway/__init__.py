"""The data plane: forwards /v1 to upstreams and keeps no durable state."""
