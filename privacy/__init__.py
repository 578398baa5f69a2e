"""Differential privacy: noise, local DP-SGD and the accounting of what was spent."""
