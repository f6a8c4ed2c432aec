"""Apps get the variables that they need, and none of the operator's."""

from __future__ import annotations

import pytest

from flower_nats.settings import SuperexecSettings
from flower_nats_cli.app_environment import for_apps
from flower_nats_cli.flower import SUPEREXEC, find_program, superexec_environment


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "TMPDIR",
            "VIRTUAL_ENV",
            "PYTHONPATH",
            "PIP_INDEX_URL",
        ),
        *("https_proxy", "NO_PROXY", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
        *("TOKENIZERS_PARALLELISM", "HF_HOME", "FLWR_HOME", "GRPC_VERBOSITY"),
    ],
)
def test_what_apps_need_is_passed_on(name: str) -> None:
    assert for_apps({name: "value"}, ()) == {name: "value"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "AWS_SECRET_ACCESS_KEY",
            "AWS_PROFILE",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "SSH_AUTH_SOCK",
        ),
        *("GITHUB_TOKEN", "HF_TOKEN", "UV_PUBLISH_TOKEN", "FLWR_LICENSE_KEY", "DATABASE_URL"),
        *("PGPASSWORD", "DBUS_SESSION_BUS_ADDRESS", "FLOWER_NATS_UP_DATA_DIR"),
    ],
)
def test_what_is_the_operators_own_is_not(name: str) -> None:
    assert for_apps({name: "value"}, ()) == {}


def test_who_says_so_passes_more_on_and_a_secret_only_by_its_name() -> None:
    ours = {"AWS_PROFILE": "a", "AWS_SECRET_ACCESS_KEY": "b", "HF_TOKEN": "c", "OTHER": "d"}

    assert for_apps(ours, ("AWS_*", "HF_TOKEN")) == {"AWS_PROFILE": "a", "HF_TOKEN": "c"}


def test_our_own_variables_are_never_passed_on() -> None:
    ours = {"FLOWER_NATS_SUPERLINK_DATABASE": "postgresql://u:hush@h/d"}

    assert for_apps(ours, ("*", "FLOWER_NATS_SUPERLINK_DATABASE")) == {}


@pytest.mark.parametrize(
    ("given", "used"), [(None, "local"), ("", "local"), ("10.0.0.1:6379", "10.0.0.1:6379")]
)
def test_simulations_use_the_ray_that_the_user_names_or_one_of_their_own(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)

    settings = SuperexecSettings(runtime_api_address="127.0.0.1:1")
    environment = superexec_environment(settings, find_program(SUPEREXEC))

    assert environment["RAY_ADDRESS"] == used
