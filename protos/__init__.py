"""The wire contract ``fedpress.v1``: ``fleet.proto``, its generated messages, and the table of its calls."""
