"""Sites and federations as a person declares them: the custom resources of a Kubernetes API server."""
