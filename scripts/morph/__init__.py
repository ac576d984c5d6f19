"""The deployment to Morph: builds a snapshot, starts an instance, replaces the old."""
