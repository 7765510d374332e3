"""Rebuilds the bundled tasks and encoders; an annex."""
