"""Parameters that an engine cannot decode: each wrong type of each parameter of each method, and what is answered.

The methods and the types of their parameters are those of SPDK's own description; the numbers and sentences are
SPDK v26.05's.  Nothing that is refused here has begun, so no order is needed between the calls.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from engines_page import ENGINES_PAGE, EnginesPage
from raw_rpc import SCHEMA, START_METHODS, RawRpc, required, wrong_params

PARSE, INVALID, INTERNAL = -32700, -32602, -32603

SENTENCES: Final = {
    (INTERNAL, "spdk_json_decode_object failed"): """
        bdev_aio_create bdev_aio_delete bdev_get_bdevs bdev_get_iostat bdev_malloc_create bdev_malloc_delete
        bdev_null_create bdev_null_delete bdev_nvme_attach_controller bdev_nvme_detach_controller
        bdev_nvme_get_controllers bdev_nvme_set_options bdev_raid_add_base_bdev bdev_reset_iostat
        bdev_set_qos_limit log_set_level log_set_print_level
        bdev_aio_rescan bdev_delay_create bdev_delay_delete bdev_delay_update_latency bdev_enable_histogram
        bdev_error_create bdev_error_delete bdev_error_inject_error bdev_error_resume_pending bdev_get_histogram
        bdev_get_histogram_borders bdev_null_resize bdev_nvme_set_multipath_policy
        bdev_nvme_set_preferred_path""",
    (-errno.EINVAL, "Failed to parse the request"): """
        bdev_nvme_add_error_injection bdev_nvme_remove_error_injection""",
    (INTERNAL, "Invalid parameters"): "bdev_nvme_get_controller_health_info",
    (INVALID, "spdk_json_decode_object failed"): "bdev_examine bdev_nvme_set_keys iobuf_set_options",
    (INVALID, "Invalid argument"): """
        bdev_nvme_disable_controller bdev_nvme_enable_controller
        bdev_nvme_reset_controller bdev_nvme_send_cmd keyring_file_add_key keyring_file_remove_key
        notify_get_notifications""",
    (INVALID, "Invalid arguments"): "framework_get_config",
    (INVALID, "bdev_nvme_get_io_paths requires no parameters"): "bdev_nvme_get_io_paths",
    (PARSE, "spdk_json_decode_object failed"): """
        bdev_raid_create bdev_raid_delete bdev_raid_get_bdevs bdev_raid_remove_base_bdev bdev_raid_set_options""",
    (INVALID, "Invalid parameters"): """
        bdev_set_options bdev_split_create bdev_split_delete framework_set_scheduler nvmf_create_subsystem
        nvmf_create_transport nvmf_delete_subsystem nvmf_discovery_add_referral nvmf_discovery_get_referrals
        nvmf_discovery_remove_referral nvmf_get_stats nvmf_get_subsystems nvmf_get_transports nvmf_ns_add_host
        nvmf_ns_remove_host nvmf_set_config nvmf_set_crdt nvmf_set_max_subsystems nvmf_subsystem_add_host
        nvmf_subsystem_add_listener nvmf_subsystem_add_ns nvmf_subsystem_allow_any_host
        nvmf_subsystem_get_controllers nvmf_subsystem_get_listeners nvmf_subsystem_get_qpairs
        nvmf_subsystem_listener_set_ana_state nvmf_subsystem_remove_host nvmf_subsystem_remove_listener
        nvmf_subsystem_remove_ns nvmf_subsystem_set_keys nvmf_subsystem_set_ns_ana_group rpc_get_methods
        sock_impl_get_options sock_impl_set_options sock_set_default_impl spdk_kill_instance""",
    (INVALID, "framework_start_init requires no parameters"): "framework_start_init",
    (INVALID, "bdev_wait_for_examine requires no parameters"): "bdev_wait_for_examine",
    (INVALID, "`framework_get_reactors` requires no arguments"): "framework_get_reactors",
    (INVALID, "'rpc_get_scheduler' requires no arguments"): "framework_get_scheduler",
    (INVALID, "'framework_get_subsystems' requires no arguments"): "framework_get_subsystems",
    (INVALID, "'thread_get_stats' requires no arguments"): "thread_get_stats",
    (INVALID, "log_get_level requires no parameters"): "log_get_level",
    (INVALID, "log_get_print_level requires no parameters"): "log_get_print_level",
    (INVALID, "sock_get_default_impl requires no parameters"): "sock_get_default_impl",
    (INVALID, "No parameters required"): "notify_get_types",
    (INVALID, "spdk_get_version method requires no parameters"): "spdk_get_version",
}
REFUSALS: Final = {name: answer for answer, names in SENTENCES.items() for name in names.split()}
UNREAD: Final = {"framework_wait_init", "keyring_get_keys"}
"""Methods that take no parameters and do not look whether there are any."""
RELAXED: Final = {
    "nvmf_create_transport", "nvmf_subsystem_add_ns", "nvmf_subsystem_add_host", "nvmf_subsystem_add_listener",
    "nvmf_discovery_add_referral", "keyring_file_add_key",
}  # fmt: skip
SWITCHED_OFF: Final = {"bdev_nvme_get_path_iostat"}
"""SPDK refuses it before it reads parameters unless ``enable_nvme_path_stat`` was set: another test has it."""
LATER: Final = {
    # A transport decodes these itself, after the method; only those of TCP are looked at when TCP is made.
    "nvmf_create_transport": {
        "acceptor_backlog", "c2h_success", "control_msg_num", "disable_adaptive_irq", "disable_mappable_bar0",
        "disable_shadow_doorbells", "max_srq_depth", "no_srq", "no_wr_batching", "num_cqe", "sock_priority",
    },
    # Options of schedulers that the embedded engine does not have.
    "framework_set_scheduler": {"core_busy", "core_limit", "load_limit", "mappings"},
}  # fmt: skip
INNER: Final = {"nvmf_subsystem_add_ns": "namespace", "nvmf_subsystem_add_listener": "listen_address"}
WITHOUT_ANY: Final = {
    "bdev_nvme_get_controller_health_info": (INTERNAL, "Missing device name"),
    "nvmf_set_max_subsystems": True,
}
"""What is answered to no parameters at all, where it is not what wrong ones are answered."""


@pytest.fixture(scope="module")
def waiting(engines: Any) -> Iterator[Any]:
    """An engine before ``framework_start_init``."""
    made = engines.waiting()
    yield made
    made.stop()


@pytest.fixture
def line(engines: Any, waiting: Any, method: str) -> Iterator[RawRpc]:
    """A connection to an engine in the phase to which the method belongs."""
    engine = waiting if method in START_METHODS else engines.get(0)
    with RawRpc(engine.process.socket) as opened:
        yield opened


def test_every_method_has_its_row() -> None:
    page = EnginesPage.parse(ENGINES_PAGE.read_text(encoding="utf-8"))
    assert REFUSALS.keys() | UNREAD | SWITCHED_OFF == page.present


@pytest.mark.parametrize("method", sorted(REFUSALS))
def test_a_parameter_of_a_wrong_type_is_refused(line: RawRpc, method: str) -> None:
    fields = {name: field for name, field in SCHEMA.methods[method].items() if name not in LATER.get(method, ())}
    cases: list[Any] = [[], *wrong_params(fields)]
    if method not in RELAXED:
        cases.append({**required(fields), "no_such_parameter": 1})
    answers = line.ask_all([(method, case) for case in cases])
    expected = REFUSALS[method]
    if method == "framework_set_scheduler":  # the name was right, the rest is for the scheduler to refuse
        answers.pop()
    assert [(case, said) for case, said in zip(cases, answers, strict=False) if said != expected] == []


@pytest.mark.parametrize("method", sorted(REFUSALS.keys() - {"framework_start_init"}))
def test_without_parameters(line: RawRpc, method: str) -> None:
    """Null is as absent.  Empty lacks what is required, and is too much for a method that takes none."""
    fields = SCHEMA.methods[method]
    line.send(f'{{"id":"absent","method":"{method}"}}')
    absent = outcome(json.loads(line.line()))
    null, empty = line.ask_all([(method, None), (method, {})])
    assert isinstance(null, tuple) == isinstance(absent, tuple)
    if required(fields) or method == "iobuf_set_options":
        assert absent == null == WITHOUT_ANY.get(method, REFUSALS[method])
    else:
        assert not isinstance(null, tuple), null
    if required(fields) or not fields:
        assert empty == REFUSALS[method]
    else:
        assert not isinstance(empty, tuple), empty


def outcome(answer: dict[str, Any]) -> Any:
    """As ``RawRpc.ask_all`` gives it."""
    error = answer.get("error")
    return answer["result"] if error is None else (error["code"], error["message"])


@pytest.mark.parametrize("method", sorted(UNREAD - {"framework_wait_init"}))
def test_parameters_that_nobody_reads(line: RawRpc, method: str) -> None:
    none, some, more = line.ask_all([(method, None), (method, []), (method, {"no_such_parameter": 1})])
    assert none == some == more


def test_params_are_an_object_an_array_or_null(engine: Any) -> None:
    """Anything else is no request, and the answer says whose it is only if the identifier came before it."""
    with RawRpc(engine.process.socket) as line:
        for params in ("5", '"x"', "true", "false"):
            answer = json.loads(line.lines(f'{{"params":{params},"id":5,"method":"notify_get_types"}}', 1)[0])
            assert (answer["id"], outcome(answer)) == (5, (-32600, "Invalid request")), params


def test_a_relaxed_method_takes_what_it_does_not_know_and_not_what_is_wrong_in_what_it_knows(engine: Any) -> None:
    """Its objects are strict all the same: an unknown field of an address or of a namespace is refused."""
    with RawRpc(engine.process.socket) as line:
        for method, inner in (
            ("nvmf_subsystem_add_ns", "namespace"),
            ("nvmf_subsystem_add_listener", "listen_address"),
        ):
            base = required(SCHEMA.methods[method])
            wrong = {**base, inner: {**base[inner], "no_such_parameter": 1}}
            assert line.ask_all([(method, wrong)]) == [REFUSALS[method]]


def test_one_name_given_twice_is_refused(engine: Any) -> None:
    with RawRpc(engine.process.socket) as line:
        twice = '{"id":1,"method":"bdev_get_bdevs","params":{"name":"a","name":"b"}}'
        assert outcome(json.loads(line.lines(twice, 1)[0])) == REFUSALS["bdev_get_bdevs"]
        relaxed = '{"id":1,"method":"keyring_file_add_key","params":{"name":"a","name":"b","path":"c"}}'
        assert outcome(json.loads(line.lines(relaxed, 1)[0])) == REFUSALS["keyring_file_add_key"]
