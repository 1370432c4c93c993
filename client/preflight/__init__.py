"""Everything that can be known to be wrong with a site before anything starts, said at once.

    for check in preflight(Path("site.yaml")):   # Check(name, level, text)
        ...

Nothing is changed: no store, secret, index or folder is made. No identifier is in what it says.
"""

from client.preflight.outcome import Check, Level
from client.preflight.run import preflight

__all__ = ["Check", "Level", "preflight"]
