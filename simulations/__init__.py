"""Whole federations on one machine: engines, partitions, tasks, and what a run leaves behind."""
