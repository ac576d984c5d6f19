"""The data plane: forwards /v1 and keeps no state worth keeping."""
