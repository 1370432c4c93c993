"""How updates are combined, and what travels."""
