"""The device's half: a session without I/O, its gRPC skin, trainers, local rules and the vault."""
