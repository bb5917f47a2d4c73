"""Says what a node is in the forms that clusters read: labels, feature files, device attributes, a document."""
