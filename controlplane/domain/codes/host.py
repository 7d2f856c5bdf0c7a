"""Pages of the HOST codes: the virtual Linux host of the demo and the tests."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HOST-001",
        title="the virtual Linux host stopped",
        explanation="QEMU ended by itself: it refused its command line, the guest's kernel panicked, or the guest "
        "ran out of memory. The end of both logs stands with the error.",
        remedy="Read the last lines of the log. A guest that ran out of memory needs a larger one.",
    ),
    Page(
        code="HOST-002",
        title="something in the virtual Linux host did not come in time",
        explanation="A command was still running at its deadline and was killed, or a state of the kernel, such as "
        "a namespace over two paths, was not seen. The guest is emulated in software and slow on a busy machine.",
        remedy="Look whether the nodes still answer (ws7000 array diff); on a busy machine, try again.",
    ),
    Page(
        code="HOST-003",
        title="a command in the virtual Linux host failed",
        explanation="The command ended with a status other than 0. What it wrote stands with the error; for "
        "'nvme connect', the kernel's last messages too, such as 'Connect for subsystem ... is not allowed'.",
        remedy="Correct what the command complains of; for a refused connect, allow the host NQN on the volume.",
    ),
)
