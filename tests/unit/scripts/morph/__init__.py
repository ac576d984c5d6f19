"""Tests of the deployment to Morph."""
