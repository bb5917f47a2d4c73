"""What leases look like as objects of Kubernetes: pure functions from a lease and parameters to plain objects, as JSON
has them, in an order in which they can be written."""
