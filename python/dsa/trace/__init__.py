"""Dump hooks: a trace of a running model for `dsa-verify localise` and `golden` (docs/dumping.md)."""
