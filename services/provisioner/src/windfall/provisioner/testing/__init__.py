"""Doubles of what stands around the provisioner."""
