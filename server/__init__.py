"""The aggregation server: coordinator, federation, store, strategies, gRPC service and journal."""
