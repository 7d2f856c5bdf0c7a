"""Pages of the SPEC codes: what can be wrong with array.yaml.

SPEC-000 to 009 are about the text, 010 to 029 about single values, 030 to 059 about values that do not fit together,
060 to 079 are warnings, 090 is a name that an array does not have.
"""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

_TEXT: Final[tuple[Page, ...]] = (
    Page(
        code="SPEC-000",
        title="array.yaml cannot be accepted",
        explanation="The file has one or more problems; each is listed with its own code, file, line and column. "
        "Nothing is planned from a file that is right only in part.",
        remedy="Put the listed problems right and run 'ws7000 array validate FILE' again.",
    ),
    Page(
        code="SPEC-001",
        title="not valid YAML",
        explanation="The text breaks the grammar of YAML, so its keys and values cannot be told apart. The place is "
        "where the reader gave up; the mistake is often in the line before. Typical: a tab used to indent, a "
        "bracket or quote that is not closed, text with braces that is not in quotes.",
        remedy='Compare the indentation with the lines around it; write patterns in quotes: "d{00..23}".',
    ),
    Page(
        code="SPEC-002",
        title="the file cannot be read or is empty",
        explanation="The path does not exist, may not be read, is not UTF-8 text, or holds nothing but comments.",
        remedy="Check the path; begin with a copy of examples/laptop.yaml.",
    ),
    Page(
        code="SPEC-003",
        title="unknown key",
        explanation="A key that is not understood is refused, never left out in silence: a misspelt 'protection' "
        "would otherwise give a pool without a mirror.",
        remedy="Use the key that is suggested; docs/reference/array-yaml.md lists all keys, and editors complete "
        "them from 'ws7000 schema'.",
    ),
    Page(
        code="SPEC-004",
        title="a required key is missing",
        explanation="Some keys have no default, since none would be right for everybody: the name and size of a "
        "volume, the address of a port, and 'ha', so that every file says plainly whether nodes stand in for each "
        "other. A list that must not be empty counts too.",
        remedy="Add the key. Example: ha: none",
    ),
    Page(
        code="SPEC-005",
        title="a key is given twice",
        explanation="Many YAML readers let the last of two equal keys win in silence. Only one of them can be meant.",
        remedy="Remove one of the two lines; the message names both.",
    ),
    Page(
        code="SPEC-006",
        title="a value of the wrong type, or none",
        explanation="Text, numbers, true/false, lists and mappings are not converted into one another. By the rules "
        "of YAML 1.2, digits alone are a number: a serial number of digits needs quotes. A key without a value is "
        "refused, because nothing is not the same as the default.",
        remedy='Write the value as the message asks. Example: serial: "12345678"',
    ),
    Page(
        code="SPEC-007",
        title="the file is too large, too deep or grows too much",
        explanation="The reader bounds the size of the text, the depth of nesting, and the number of values and "
        "aliases, so that a small file cannot grow without end.",
        remedy="Check that this is the right file; write repeated parts out instead of nesting aliases.",
    ),
    Page(
        code="SPEC-008",
        title="a feature of YAML that is not used here",
        explanation="Tags (!name), merge keys (<<), several documents in one file and aliases to unfinished values "
        "are refused: array.yaml is plain data, in the core schema of YAML 1.2. Anchors (&) and aliases (*) for "
        "whole values are fine.",
        remedy="Write the value out.",
    ),
    Page(
        code="SPEC-009",
        title="an unknown version or kind of file",
        explanation="apiVersion and kind say how the rest of the file is to be read. This version reads "
        "'apiVersion: ws7000/v1' and 'kind: Array' only.",
        remedy="Use a version of ws7000 that knows the file, or correct the two lines.",
    ),
)

_VALUES: Final[tuple[Page, ...]] = (
    Page(
        code="SPEC-010",
        title="a name with characters that names do not have",
        explanation="Names go into NQNs, names of engine objects and file names, so they have 1 to 40 lower-case "
        "letters, digits and, inside, hyphens. No drive can be called 'all', which stands for every drive.",
        remedy="Example: train-data-1",
    ),
    Page(
        code="SPEC-011",
        title="a quantity without a clear unit",
        explanation="Half of the world reads 2T as 2,000,000,000,000 bytes and the other half as 2,199,023,255,552. "
        "So sizes are written with KiB, MiB, GiB, TiB, PiB (powers of 1024) or kB, MB, GB, TB, PB (powers of 1000), "
        "rates with the time too (500MiB/s, 200Gbit/s), shares with %, lengths with m.",
        remedy="Write the unit. Example: size: 2TiB",
    ),
    Page(
        code="SPEC-012",
        title="a number or list out of range",
        explanation="The value is below or above what the engine, the protocol or the map of the array can hold; "
        "the reason names the bound.",
        remedy="Use a value within the range.",
    ),
    Page(
        code="SPEC-013",
        title="not one of the words allowed",
        explanation="The key takes one of a few words.",
        remedy="Use one of the words that the message lists. Example: protection: mirror",
    ),
    Page(
        code="SPEC-014",
        title="not a legal NQN",
        explanation="NVMe qualified names have the form nqn.YYYY-MM.reverse.domain:name or "
        "nqn.2014-08.org.nvmexpress:uuid:UUID and at most 223 bytes (NVMe base specification 2.0, 4.7).",
        remedy="On a Linux host: cat /etc/nvme/hostnqn",
    ),
    Page(
        code="SPEC-015",
        title="not a PCIe address",
        explanation="A PCIe address names domain, bus, device and function in hexadecimal: 0000:01:00.0.",
        remedy="'lspci -D' shows the full addresses. Example: pcie: \"0000:01:00.0\"",
    ),
    Page(
        code="SPEC-016",
        title="not an address that hosts can connect to",
        explanation="Ports take an IPv4 or IPv6 address. Host names are not looked up, because the answer may "
        "change; 0.0.0.0 and :: are no addresses to connect to.",
        remedy="Example: address: 10.8.0.1",
    ),
    Page(
        code="SPEC-017",
        title="a pattern or list that does not come out even",
        explanation="A range in braces stands for several texts: d{00..23} is d00, d01, ... d23. There is one range a "
        "text, it runs upwards, and it must give as many names as the entry has drives.",
        remedy='Example: name: "d{00..23}"',
    ),
    Page(
        code="SPEC-018",
        title="a drive that is reached in no way, or in several",
        explanation="A drive has exactly one of pcie, nvmeof and file. A file also has a size; the others tell "
        "their own. A serial number is checked when the drive is adopted, but does not say where the drive is.",
        remedy='Example: {file: "drives/d{00..23}.img", size: 256MiB}',
    ),
    Page(
        code="SPEC-019",
        title="not a place where an engine can answer",
        explanation="rpc is the path of a UNIX socket (with a / in it, at most 107 bytes when absolute, a bound of the "
        "kernel) or host:port.",
        remedy="Example: rpc: /run/ws7000/a.sock",
    ),
    Page(
        code="SPEC-020",
        title="text that cannot be written to a file or the wire",
        explanation="Paths have no control characters, serial numbers are 1 to 20 printable ASCII characters, and "
        "an escape in a quoted text must stand for a whole character.",
        remedy="Copy the text again from its source.",
    ),
)

_RELATIONS: Final[tuple[Page, ...]] = (
    Page(
        code="SPEC-030",
        title="a name is given twice",
        explanation="Within its kind, a name stands for one thing.",
        remedy="Rename or remove one of the two; the message names the other line.",
    ),
    Page(
        code="SPEC-031",
        title="a name that the file does not define",
        explanation="Pools, drives, hosts, subsystems and nodes are used by name, and each must be defined in the "
        "same file.",
        remedy="Correct the name, or define the thing.",
    ),
    Page(
        code="SPEC-032",
        title="a drive is in two pools",
        explanation="A drive is cut into slices of one size, for one pool.",
        remedy="Take the drive out of one of the pools. 'drives: all' takes every drive of the file.",
    ),
    Page(
        code="SPEC-033",
        title="one device is given to two drives",
        explanation="Two drives with one PCIe address, NQN, file or serial number would be one drive with two "
        "maps: data would be overwritten.",
        remedy="Check both entries against the labels of the drives ('lspci -D', 'nvme list').",
    ),
    Page(
        code="SPEC-034",
        title="an address and port are given twice",
        explanation="Two data ports, RPC sockets or the shelf cannot listen at one address and port.",
        remedy="Give each its own; on one machine, one address with different ports is fine.",
    ),
    Page(
        code="SPEC-035",
        title="a mirror that the drives cannot hold",
        explanation="The two copies of a slice lie on two drives, and where failure domains are named, in two of "
        "them. So a mirrored pool has at least two drives, and no failure domain has more than half of them.",
        remedy="Add or move drives, or write 'protection: none'.",
    ),
    Page(
        code="SPEC-036",
        title="a stripe wider than its pool",
        explanation="Each column of a stripe has a drive of its own; a mirrored column has two.",
        remedy="Use a smaller stripe, or leave it out to use the whole pool.",
    ),
    Page(
        code="SPEC-037",
        title="a chunk that cannot be used",
        explanation="A chunk, the bytes that a column takes in turn, is a power of two from 4KiB to 1MiB: the engine "
        "asks for a power of two, and chunks must divide slices, which are whole MiB.",
        remedy="Use 64KiB unless you measured something better.",
    ),
    Page(
        code="SPEC-038",
        title="a volume smaller than a slice",
        explanation="Volumes are cut in whole slices; the smallest is one slice.",
        remedy="Make the volume larger, or the slices of the pool smaller (before its drives are adopted).",
    ),
    Page(
        code="SPEC-039",
        title="high availability that cannot work",
        explanation="A node can stand in for the other only if there are two, and if both reach every drive: "
        "dual-ported PCIe drives in one enclosure, or NVMe-oF shelves. Drives inside one server do not survive it.",
        remedy="Add what is missing, or say plainly 'ha: none'.",
    ),
    Page(
        code="SPEC-040",
        title="a QoS limit that the engine cannot keep",
        explanation="SPDK counts QoS in steps of 1000 I/O a second and 1MiB/s (lib/bdev/bdev.c) and rounds anything "
        "else up, so that the limit in force would not be the one in the file.",
        remedy="Use one of the two values that the message names.",
    ),
    Page(
        code="SPEC-041",
        title="more than the engine can hold",
        explanation="SPDK bounds what one target holds: 1024 subsystems with the discovery subsystem, 16 listeners a "
        "subsystem, CNTLIDs 1 to FFEFh (cut in halves for two nodes); an array has at most 1024 drives.",
        remedy="Divide the volumes among fewer subsystems, or the drives among several arrays.",
    ),
    Page(
        code="SPEC-042",
        title="slices that do not fit",
        explanation="A drive is cut into at most 512 equal slices; slice 0 is the array's own, so at least two must "
        "fit. slices_per_drive and slice_size follow from each other, so only one of them is given.",
        remedy="Use smaller slices or larger files; leave both keys out to let the array choose.",
    ),
    Page(
        code="SPEC-043",
        title="an NQN is given twice",
        explanation="An NQN names one host or one subsystem in the world. Machines cloned from one image share "
        "their host NQN, and the engine would take them for one.",
        remedy="On the clone: nvme gen-hostnqn > /etc/nvme/hostnqn",
    ),
    Page(
        code="SPEC-044",
        title="a quorum that cannot vote",
        explanation="An odd number of drives (3, 5 or 7) votes on which node is alive; each voice is one drive of "
        "the file.",
        remedy="Use 5, or 3 with few drives.",
    ),
    Page(
        code="SPEC-045",
        title="classes of traffic that contradict each other",
        explanation="Each class has its own name, DSCP and priority; strict classes have no share; shares add up to "
        "100% at most.",
        remedy="Leave classes out to use those of the profile.",
    ),
)

_WARNINGS: Final[tuple[Page, ...]] = (
    Page(
        code="SPEC-060",
        title="warning: a volume that no host sees",
        explanation="A volume is visible to the hosts it names, and to nobody else. Without any it only takes room.",
        remedy="Add 'hosts: [NAME]' when a host is to use it.",
    ),
    Page(
        code="SPEC-061",
        title="warning: read-only is advisory",
        explanation="The engine has no write protection for single hosts, so a read-only volume is one that the "
        "host side mounts so. The rights of hosts are whether they see a volume, and their secret.",
        remedy="Keep hosts that must not write out of the volume's list.",
    ),
    Page(
        code="SPEC-062",
        title="warning: drives in no pool",
        explanation="These drives are attached, but hold no data: they are spares, or a line was forgotten.",
        remedy="Add them to a pool, unless they are spares.",
    ),
    Page(
        code="SPEC-063",
        title="warning: the engine's JSON-RPC is reached over the network",
        explanation="JSON-RPC of the engine has neither authentication nor encryption: who reaches it owns the array "
        "and its data.",
        remedy="Use a UNIX socket, or a separate management network behind a packet filter.",
    ),
    Page(
        code="SPEC-064",
        title="warning: a part of the drives stays unused",
        explanation="A drive has at most 512 slices; with slices this small the rest of the drive is left out.",
        remedy="Use larger slices.",
    ),
    Page(
        code="SPEC-065",
        title="warning: a shelf without file drives",
        explanation="The section shelf says where the shelf process exports drives that are files; this file has none.",
        remedy="Remove it; drives behind a real shelf are given with nvmeof.",
    ),
    Page(
        code="SPEC-090",
        title="the array has no such name",
        explanation="A node, drive, pool, subsystem, volume or host was asked for that the array does not have.",
        remedy="Use one of the names that the message lists, or add it to array.yaml and apply.",
    ),
)

PAGES: Final[tuple[Page, ...]] = (*_TEXT, *_VALUES, *_RELATIONS, *_WARNINGS)
