"""What a person can type: a file for each matter. Bodies load what they need when they are called."""
