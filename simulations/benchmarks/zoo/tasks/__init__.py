"""The zoo's problems: one small module each, as ``fedpress.task`` wants them, and what they are made of.

``layers`` has the networks, ``pictures``, ``tables``, ``tokens`` and ``signals`` the data: generators that draw the
same numbers everywhere, and parts of real data sets, small enough that a run of 20 to 40 rounds takes seconds.
"""
