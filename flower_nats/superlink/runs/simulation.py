"""The simulation options of a federation: their defaults and their checks."""

import logging
import math

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.packages import how_to_install
from flower_nats.wire import common_pb2 as common

BACKEND = "ray"
"""The one backend that `flwr-simulation` has (flwr 1.42 `server/superlink/fleet/vce/backend`)."""

DEFAULTS = common.SimulationConfig(
    num_supernodes=2,
    client_resources_num_cpus=2,
    client_resources_num_gpus=0.0,
    backend=BACKEND,
    verbose=False,
    init_args_logging_level="WARNING",
    init_args_log_to_driver=True,
)
"""The default options (flwr 1.42 `supercore/constant.py`)."""

_AT_LEAST_ONE = ("num_supernodes", "client_resources_num_cpus", "init_args_num_cpus")


_UNEXPLAINED = (
    "Task failed with unknown error",
    "An error was encountered. Ending simulation",
    "`ray` is not available",
)
"""Texts of `flwr-simulation` for failures that may not be the app's (flwr 1.42 `simulation/app.py`,
`simulation/run_simulation.py`)."""


def explained(details: str) -> str:
    """Return why a simulation failed, with the remedy if Ray may be missing."""
    if not any(words in details for words in _UNEXPLAINED):
        return details
    return (
        f"{details} Its log says more. If that names Ray, or extra dependencies for simulation: "
        f"{how_to_install('simulation')}, with the pip of flower-superexec."
    )


def merged(*configs: common.SimulationConfig | bytes) -> common.SimulationConfig:
    """Merge several configurations; later ones override earlier ones."""
    result = common.SimulationConfig()
    for config in configs:
        result.MergeFrom(
            common.SimulationConfig.FromString(config) if isinstance(config, bytes) else config
        )
    return result


def check(config: common.SimulationConfig) -> None:
    """Check simulation options. Raises `ApiError` (INVALID_RUN_CONFIG), which names the error."""
    problem = next(
        (
            f"{name.replace('_', '-')} must be at least 1."
            for name in _AT_LEAST_ONE
            if config.HasField(name) and getattr(config, name) < 1  # type: ignore[arg-type]
        ),
        "",
    )
    gpus = config.client_resources_num_gpus
    if not (math.isfinite(gpus) and gpus >= 0):
        problem = "client-resources-num-gpus must be a number from 0 on."
    if config.HasField("backend") and config.backend != BACKEND:
        problem = (
            f"There is no simulation backend {config.backend[:80]!r}: the only one is {BACKEND!r}."
        )
    level = config.init_args_logging_level
    if config.HasField("init_args_logging_level") and level not in logging.getLevelNamesMapping():
        problem = (
            f"init-args-logging-level must be one such as WARNING or DEBUG, not {level[:80]!r}."
        )
    if problem:
        raise ApiError(ErrorCode.INVALID_RUN_CONFIG, problem, problem)
