"""The commands of ``fedcxr-site``, one file each; :mod:`client.cli` puts them together."""
