"""Who belongs to a fleet: its authority, what that signs, and how a site comes to be known and stops being so."""
