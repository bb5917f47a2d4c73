"""Measures what the node can do: programs that may hang, their runs, and the estimates that are made of them."""
