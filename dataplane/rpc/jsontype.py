"""The type of a decoded JSON value, in one place.

Why: what an engine sends is not known to a type checker; ``Json`` marks every place where that is so.  It must
never leave this package: ``reply`` turns it into values.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = Any
