"""Codecs for whole models, for what leaves the server at the end of a run: distil, export, quantise, check, ship."""
