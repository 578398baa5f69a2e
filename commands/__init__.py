"""The verbs of the command line, by what they are for; ``fedpress.cli`` is the table of them."""
