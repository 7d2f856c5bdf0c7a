"""Pages of the RPC codes: what can go wrong between the control plane and an engine."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

_LINK: Final = (
    Page(
        code="RPC-001",
        title="no connection to the engine",
        explanation=(
            "Nothing accepts connections at the engine's address. The engine is not running, it was started with "
            "another socket, or the socket belongs to another user. Nothing was sent."
        ),
        remedy=(
            "Start the engine on that node, or correct the address. A UNIX socket must exist and be writable for "
            "you; a TCP address must be a numeric IP address, because looking a name up has no deadline."
        ),
    ),
    Page(
        code="RPC-002",
        title="the connection ended before the answer came",
        explanation=(
            "The call was sent, and then the engine closed the connection: it stopped, was restarted, or could not "
            "read the request. Nobody knows whether the call was carried out, so it is not sent again."
        ),
        remedy="Observe the node again (`ws7000 array plan` does) and apply what is still missing.",
    ),
    Page(
        code="RPC-003",
        title="no answer before the deadline",
        explanation=(
            "The whole call, connecting included, has one wall-clock deadline, and it passed. The engine is busy, "
            "stopped, or all of its 64 connections are taken. The connection was closed, so a late answer is never "
            "taken for the answer to another call; the engine may still carry the call out."
        ),
        remedy="Look at the engine's process and log, and observe again. Raise the deadline only for a slow engine.",
    ),
    Page(
        code="RPC-005",
        title="what came is not JSON-RPC",
        explanation=(
            "The bytes that came are no JSON objects with a result or an error. What listens at the address is no "
            "engine, the engine broke in the middle of an answer, or it could not read what it was sent."
        ),
        remedy="Check the address and the engine's log. The next call makes a new connection.",
    ),
    Page(
        code="RPC-006",
        title="the connection is not the one the decision was built on",
        explanation=(
            "A step said which connection its observation came from, and the session has made another one since. "
            "The engine may be a new process that knows nothing of what was seen. Nothing was sent."
        ),
        remedy="Observe again and decide again; `ws7000 array apply` does both.",
    ),
)

_ANSWER: Final = (
    Page(
        code="RPC-004",
        title="the engine answered with an error",
        explanation=(
            "The engine understood the call and refused it or failed in it. The number is a negative errno or one of "
            "JSON-RPC's own. SPDK's nvmf methods say -32602 or -32603 both for things that do not exist and for "
            "things that exist already, so the number alone does not tell which."
        ),
        remedy="Read the engine's message and its log of that moment, then observe the node again.",
    ),
    Page(
        code="RPC-008",
        title="the method belongs to another phase of the engine",
        explanation=(
            "An engine started with --wait-for-rpc takes start-up options until framework_start_init, and every "
            "other method only after it."
        ),
        remedy="Restart the engine to change start-up options; wait for the end of its start for everything else.",
    ),
    Page(
        code="RPC-009",
        title="the engine has no such method",
        explanation=(
            "The method is not part of this engine: it is of another release, was built without that module, or an "
            "allow-list hides the method."
        ),
        remedy="Ask the engine for its methods (rpc_get_methods) and version, and compare with the supported releases.",
    ),
    Page(
        code="RPC-015",
        title="the engine's answer is not understood",
        explanation=(
            "A field that every supported release sends is missing or of another type. Guessing would let a plan "
            "be built on something that was not seen."
        ),
        remedy="Compare the engine's version with the supported releases.",
    ),
)

_CHECK: Final = (
    Page(
        code="RPC-007",
        title="the request is too long",
        explanation=(
            "The engine reads a request into 256 KiB and takes at most 8192 JSON values; it closes the connection on a "
            "longer one, so it was not sent."
        ),
        remedy="Split the call, for example by creating fewer objects in one call.",
    ),
    Page(
        code="RPC-010",
        title="the engine's release has no method of this name",
        explanation="The call was held against the method list that SPDK publishes for that release, and not sent.",
        remedy="Correct the name; the error names the nearest one. Newer methods need a newer engine.",
    ),
    Page(
        code="RPC-011",
        title="the method has no parameter of this name",
        explanation=(
            "Most of SPDK's methods refuse the whole call for an unknown parameter; nvmf_create_transport and five "
            "others silently ignore it, and a setting is lost. The call was not sent."
        ),
        remedy="Correct the name; the error names the nearest one and lists all.",
    ),
    Page(
        code="RPC-012",
        title="a required parameter is missing",
        explanation="The method cannot work without this parameter, so the call was not sent.",
        remedy="Give the parameter.",
    ),
    Page(
        code="RPC-013",
        title="a parameter has the wrong type",
        explanation=(
            "The method takes another type there, or a number in another range. JSON tells numbers from strings and "
            "from true/false, and SPDK converts none into another. The call was not sent."
        ),
        remedy="Correct the value; the error says what is wanted and what was given.",
    ),
    Page(
        code="RPC-014",
        title="a parameter's word is not one of those it can be",
        explanation="The parameter takes one of a few words, and this is none of them. The call was not sent.",
        remedy="Use one of the words the error lists.",
    ),
    Page(
        code="RPC-016",
        title="the quantity cannot be said in the engine's unit",
        explanation=(
            "SPDK takes sizes of splits and rates in whole MiB, strips in whole KiB, and devices in whole blocks. A "
            "quantity in between would have to be rounded, and rounding a size loses data, so it is refused."
        ),
        remedy="Use a multiple of the unit the error names.",
    ),
    Page(
        code="RPC-017",
        title="the engine's release is too old",
        explanation=(
            "The engine said its version, and it is older than the oldest release whose methods are described here "
            "(26.05). A call that nobody can check might be refused, or lose a setting silently, so none was sent. An "
            "engine that is newer than every description is spoken to as the newest that is known."
        ),
        remedy="Run SPDK 26.05 or newer on that node, or the embedded engine.",
    ),
)

PAGES: Final[tuple[Page, ...]] = (*_LINK, *_ANSWER, *_CHECK)
