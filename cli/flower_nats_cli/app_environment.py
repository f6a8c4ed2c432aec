"""Which of our environment variables a SuperExec gets, and with it every app that it starts.

An app is other people's code, and an operator's shell may hold keys of a cloud. So variables that
are not known to be needed are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from flower_nats_cli.environment import PREFIX

_NEEDED = (
    # The system.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TERM", "COLUMNS", "NO_COLOR"),
    *(
        "LANG",
        "LANGUAGE",
        "LC_*",
        "TZ",
        "TZDIR",
        "TMPDIR",
        "TEMP",
        "TMP",
        "XDG_*",
        "LD_LIBRARY_PATH",
    ),
    # Python, and the programs that install packages for an app.
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "MAMBA_*", "PIP_*", "UV_*"),
    # The network.
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_*"),
    # Processors and their libraries.
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "CUDNN_*", "CUBLAS_*", "HIP_*", "ROCR_*", "ROCM_*", "HSA_*"),
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "NUMEXPR_*", "MALLOC_*"),
    # Libraries of machine learning.
    *("TORCH*", "PYTORCH_*", "TF_*", "XLA_*", "JAX_*", "KERAS_*", "NUMBA_*", "JOBLIB_*", "RAY_*"),
    *("HF_*", "TRANSFORMERS_*", "TOKENIZERS_PARALLELISM", "MPLCONFIGDIR", "MPLBACKEND"),
    # Flower.
    "FLWR_*",
)
"""Names, and patterns of names."""

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|(?:^|_)KEY(?:_|$)")
"""Variables that no pattern passes: only their own names do."""


def for_apps(variables: Mapping[str, str], more: Iterable[str]) -> dict[str, str]:
    """Return the `variables` for apps: the needed ones, and those that `more` names or matches.

    Our own variables may hold passwords, and are never passed.
    """
    names = (*_NEEDED, *more)
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(f"{PREFIX}_") and _passes(name, names)
    }


def _passes(name: str, names: Iterable[str]) -> bool:
    if _SECRET.search(name):
        return name in names
    return any(fnmatchcase(name, one) for one in names)
