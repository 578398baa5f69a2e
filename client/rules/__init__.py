"""The client half of each strategy, one file per published algorithm."""
