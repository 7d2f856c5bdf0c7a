"""``--hypothesis-profile deep``: more examples than continuous integration has time for."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("deep", max_examples=5000, deadline=None)
