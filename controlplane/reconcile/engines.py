"""What the nodes' engines are: where they answer, and what they call themselves."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain.image import NodeImage, Seen


def engine_address(text: str) -> str | tuple[str, int]:
    """The address in ``rpc`` of a node: a UNIX socket path, or ``host:port``."""
    if "/" in text:
        return text
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else text


def engine_versions(seen: Mapping[str, Seen]) -> dict[str, str]:
    """What each node's engine said it is; empty where it was not observed."""
    return {name: image.engine if isinstance(image, NodeImage) else "" for name, image in seen.items()}
