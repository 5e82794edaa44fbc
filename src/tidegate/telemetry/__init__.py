"""Logs and metrics: what the roles say about themselves. Used by every room above it."""
