"""Documents that cannot lie: what they say is done, typed, built and looked up."""
