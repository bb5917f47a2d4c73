"""What the node's devices count, under OpenTelemetry's names (``hw.*``)."""
