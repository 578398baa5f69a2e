"""``fedpress audit RUN``: the attacks of ``fedpress.privacy.audit`` on a finished run, and what came of them."""
