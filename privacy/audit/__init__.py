"""Attacks that measure what a model, an update or a mechanism gives away, and what epsilon they prove it has."""
