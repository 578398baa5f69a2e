"""``fedpress bench zoo``: kinds of models, optimisers and data that no default codec was fitted to."""
