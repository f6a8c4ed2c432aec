"""Generate the protobuf modules and their stubs from the .proto files beside this script.

Run as `make proto`; the results are committed, so that an installation needs no compiler.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted(Path(__file__).parent.glob("*.proto"))


def main() -> int:
    """Compile every .proto file; return protoc's exit code."""
    arguments = ["protoc", f"-I{ROOT}", f"--python_out={ROOT}", f"--mypy_out={ROOT}"]
    return int(protoc.main(arguments + [str(proto.relative_to(ROOT)) for proto in PROTOS]))


if __name__ == "__main__":
    sys.exit(main())
