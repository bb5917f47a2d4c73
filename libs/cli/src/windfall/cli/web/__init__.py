"""``windfall web``: one page that shows a fleet live, from the same events as ``windfall get``; it changes nothing."""
