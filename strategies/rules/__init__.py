"""Rules that combine the updates of a round, one file each."""
