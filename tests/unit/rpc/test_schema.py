"""Calls are held against SPDK's own method lists."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
from engines_page import ENGINES_PAGE

from dataplane.rpc.errors import SchemaError
from dataplane.rpc.schema import RELEASES, Schema, known_methods
from dataplane.rpc.schema.translate import MATCH_ANY

NAMESPACE = {"bdev_name": "r0", "nsid": 1, "nguid": "AB" * 16, "uuid": "22222222-2222-4222-8222-222222222222"}
OLD, NEW = Schema.load("26.05"), Schema.load("26.09")


def problem(method: str, params: dict[str, Any], schema: Schema = OLD) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        schema.check(method, params)
    return caught.value


@pytest.mark.parametrize("schema", [OLD, NEW])
def test_a_right_call_passes(schema: Schema) -> None:
    schema.check("bdev_get_bdevs", {})
    schema.check("bdev_get_bdevs", {"name": "x", "timeout": 2**64 - 1})
    schema.check("nvmf_subsystem_add_ns", {"nqn": "q", "namespace": NAMESPACE})
    schema.check("nvmf_create_transport", {"trtype": "TCP", "masked_oncs": ["reservs"], "zcopy": True})
    schema.check("bdev_raid_create", {"name": "r", "raid_level": "raid0", "base_bdevs": ["a", "b"]})
    schema.check("bdev_nvme_set_options", {"bdev_retry_count": -1, "enable_flush": True})
    schema.check("bdev_nvme_set_options", {"dhchap_digests": ["sha256"]})


@pytest.mark.parametrize(
    ("method", "params", "code", "path", "says"),
    [
        ("bdev_get_bdev", {}, "RPC-010", "", "did you mean 'bdev_get_bdevs'?"),
        ("bdev_get_bdevs", {"nmae": "x"}, "RPC-011", "nmae", "did you mean 'name'?"),
        ("bdev_get_bdevs", {"qqqq": "x"}, "RPC-011", "qqqq", "has no parameter qqqq"),
        ("framework_start_init", {"name": 1}, "RPC-011", "name", "has no parameter"),
        ("bdev_null_create", {"name": "n"}, "RPC-012", "block_size", "needs the parameter block_size"),
        ("bdev_get_bdevs", {"name": 1}, "RPC-013", "name", "a string; it is 1"),
        ("bdev_get_bdevs", {"timeout": -1}, "RPC-013", "timeout", "between 0 and 18446744073709551615"),
        ("bdev_get_bdevs", {"timeout": True}, "RPC-013", "timeout", "a whole number; it is true"),
        ("bdev_get_bdevs", {"timeout": 1.0}, "RPC-013", "timeout", "a whole number"),
        ("bdev_set_options", {"bdev_auto_examine": 0}, "RPC-013", "bdev_auto_examine", "true or false"),
        ("bdev_malloc_create", {"uuid": "x"}, "RPC-013", "uuid", "a UUID of 36 characters"),
        ("bdev_get_iostat", {"names": "m0"}, "RPC-013", "names", "an array"),
        ("bdev_get_iostat", {"names": ["m0", 1]}, "RPC-013", "names[1]", "a string"),
        ("bdev_raid_create", {"base_bdevs": ["x"] * 256}, "RPC-013", "base_bdevs", "at most 255 entries, not 256"),
        ("bdev_raid_create", {"raid_level": "raid6"}, "RPC-014", "raid_level", "use one of raid0"),
        ("bdev_raid_create", {"raid_level": 1}, "RPC-013", "raid_level", "a word"),
        ("nvmf_create_transport", {"trtype": "TCP", "masked_oncs": ["resv"]}, "RPC-014", "masked_oncs[0]", "'reservs'"),
        ("nvmf_subsystem_add_ns", {"namespace": "r0"}, "RPC-013", "namespace", "an object"),
        ("nvmf_subsystem_add_ns", {"nqn": "q", "namespace": {"nsid": 1}}, "RPC-012", "namespace.bdev_name", "needs"),
    ],
)
def test_each_problem_is_named(method: str, params: dict[str, Any], code: str, path: str, says: str) -> None:
    found = problem(method, params)
    assert (found.code, found.path, found.method) == (code, path, method)
    assert says in f"{found.what} {found.remedy}"


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("nvmf_create_transport", {"trtype": "TCP", "max_io_sise": 1}, "max_io_sise"),
        ("nvmf_subsystem_add_listener", {"listen_address": {"tradr": "x"}}, "listen_address.tradr"),
        ("nvmf_subsystem_add_ns", {"namespace": {**NAMESPACE, "ngiud": ""}}, "namespace.ngiud"),
        ("nvmf_subsystem_add_host", {"nqn": "q", "host": "h", "dhchapkey": "k"}, "dhchapkey"),
        ("nvmf_discovery_add_referral", {"subnqm": "q"}, "subnqm"),
    ],
)
def test_a_typo_that_the_engine_would_silently_ignore_is_found(method: str, params: dict[str, Any], path: str) -> None:
    found = problem(method, params)
    assert (found.code, found.path) == ("RPC-011", path)


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    found = problem("accel_crypto_key_create", {"key": 112233})
    assert found.path == "key"
    assert "112233" not in f"{found} {found.to_json()}"


def test_what_a_release_brought_is_refused_by_the_older_one() -> None:
    NEW.check("nvmf_create_subsystem", {"nqn": "q", "admin_label": "x"})
    assert problem("nvmf_create_subsystem", {"nqn": "q", "admin_label": "x"}).path == "admin_label"
    OLD.check("nvmf_create_subsystem", {"nqn": "q", "max_discard_size_kib": 1})
    assert problem("nvmf_create_subsystem", {"nqn": "q", "max_discard_size_kib": 1}, NEW).code == "RPC-011"


@pytest.mark.parametrize(
    ("version", "release"),
    [((26, 5), "26.05"), ((26, 8), "26.05"), ((26, 9), "26.09"), ((27, 1), "26.09")],
)
def test_the_newest_schema_that_is_not_newer_is_used(version: tuple[int, int], release: str) -> None:
    found = Schema.for_version(*version)
    assert found is not None
    assert found.release == release


@pytest.mark.parametrize("version", [(26, 4), (26, 1), (25, 9), (0, 0)])
def test_an_engine_older_than_every_schema_has_none(version: tuple[int, int]) -> None:
    assert Schema.for_version(*version) is None


def test_what_differs_between_the_releases_is_what_the_page_says() -> None:
    """docs/reference/engines.md has a table of it, and translate.py renames a part: neither may fall behind."""
    assert OLD.methods.keys() == NEW.methods.keys()
    assert OLD.objects == NEW.objects
    changed = {
        f"{method}.{name}"
        for method in OLD.methods
        for name in OLD.methods[method].keys() | NEW.methods[method].keys()
        if OLD.methods[method].get(name) != NEW.methods[method].get(name)
    }
    page = ENGINES_PAGE.read_text(encoding="utf-8")
    section = page[page.index("## SPDK 26.09") :].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
    assert changed == {f"{method}.{name}" for method, names in rows for name in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize(
    ("method", "params", "old", "new"),
    [
        ("nvmf_create_subsystem", {"max_discard_size_kib": 4}, {"dmrsl": 8}, {"dmrsl": 8}),
        ("nvmf_create_subsystem", {"max_write_zeroes_size_kib": 0}, {"wzsl": 0}, {"wzsl": 0}),
        ("nvmf_create_subsystem", {"max_write_zeroes_size_kib": 8}, {"wzsl": 1}, {"wzsl": 1}),
        ("nvmf_create_subsystem", {"max_write_zeroes_size_kib": 1024}, {"wzsl": 8}, {"wzsl": 8}),
        ("nvmf_create_subsystem", {"dmrsl": 8, "wzsl": 1}, {"dmrsl": 8, "wzsl": 1}, {"dmrsl": 8, "wzsl": 1}),
        (
            "nvmf_set_config",
            {"discovery_filter": "match_any"},
            {"discovery_filter": "match_any"},
            {"discovery_filters": []},
        ),
        ("nvmf_set_config", {"discovery_filters": []}, {"discovery_filter": MATCH_ANY}, {"discovery_filters": []}),
        (
            "nvmf_set_config",
            {"discovery_filters": ["transport", "svcid"]},
            {"discovery_filter": "transport,svcid"},
            {"discovery_filters": ["transport", "svcid"]},
        ),
        (
            "nvmf_set_config",
            {"discovery_filter": "transport,svcid", "poll_groups_mask": "1"},
            {"discovery_filter": "transport,svcid", "poll_groups_mask": "1"},
            {"discovery_filters": ["transport", "svcid"], "poll_groups_mask": "1"},
        ),
        ("bdev_get_bdevs", {"name": "x"}, {"name": "x"}, {"name": "x"}),
        ("no_such_method", {"name": "x"}, {"name": "x"}, {"name": "x"}),
    ],
)
def test_a_call_is_said_in_the_words_of_the_release(
    method: str, params: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    given = dict(params)
    for schema, expected in ((OLD, old), (NEW, new)):
        said = schema.translate(method, given)
        assert said == expected
        assert given == params, "the caller's parameters are left alone"
        if method != "no_such_method":
            schema.check(method, {"nqn": "q", **said} if method == "nvmf_create_subsystem" else said)


@pytest.mark.parametrize(
    ("method", "params", "schema", "path"),
    [
        ("nvmf_create_subsystem", {"nqn": "q", "max_write_zeroes_size_kib": 12}, NEW, "max_write_zeroes_size_kib"),
        ("nvmf_create_subsystem", {"nqn": "q", "max_write_zeroes_size_kib": 4}, NEW, "max_write_zeroes_size_kib"),
        ("nvmf_create_subsystem", {"nqn": "q", "max_discard_size_kib": 2**31}, NEW, "max_discard_size_kib"),
        ("nvmf_create_subsystem", {"nqn": "q", "max_discard_size_kib": True}, NEW, "max_discard_size_kib"),
        ("nvmf_create_subsystem", {"nqn": "q", "max_discard_size_kib": 4, "dmrsl": 8}, NEW, "max_discard_size_kib"),
        ("nvmf_set_config", {"discovery_filters": ["name"]}, OLD, "discovery_filters"),
        ("nvmf_create_subsystem", {"nqn": "q", "admin_label": "x"}, OLD, "admin_label"),
        ("bdev_nvme_attach_controller", {"disable_sq_flow_control": True}, OLD, "disable_sq_flow_control"),
    ],
)
def test_what_a_release_cannot_say_is_refused_and_who_can_is_told(
    method: str, params: dict[str, Any], schema: Schema, path: str
) -> None:
    found = problem(method, schema.translate(method, params), schema)
    assert (found.code, found.path) == ("RPC-011", path)
    assert found.why == f"only SPDK {'26.05' if schema is NEW else '26.09'} has it"


def test_a_filter_that_no_release_knows_stays_as_it_is() -> None:
    for text in ("name", "match_any,transport", "transport,name"):
        assert NEW.translate("nvmf_set_config", {"discovery_filter": text}) == {"discovery_filter": text}


def test_the_data_are_whole_and_carry_their_licence() -> None:
    data = resources.files("dataplane.rpc.schema")
    assert "BSD-3-Clause" in data.joinpath("LICENSE.spdk").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"there is 26\.05, 26\.09"):
        Schema.load("25.01")
    for release in RELEASES:
        schema = Schema.load(release)
        assert len(schema.methods) == 296
        for fields in [*schema.methods.values(), *schema.objects.values()]:
            for field in fields.values():
                if field["type"] == "enum":
                    assert schema.enums[field["class"]]
                elif field["type"] == "array":
                    assert field["class"] in schema.arrays
                elif field["type"] == "object":
                    assert "class" not in field or field["class"] in schema.objects
    assert "bdev_get_bdevs" in known_methods()
