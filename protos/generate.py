"""Generate the stubs beside the protos, and lint them: `python protos/generate.py [--check]`.

protovalidate's wheel carries the descriptor of `buf/validate/validate.proto` but neither its source nor stubs for
google's protobuf, so protoc and buf are given descriptors instead of a vendored file, and its stubs are generated with
ours. What is etcd's (`etcdserverpb`, `mvccpb`) keeps its names, which buf would not let pass. `--check` writes
nothing: it lints, generates into a temporary directory and exits 1 when a stub differs.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
VALIDATE = "buf/validate/validate.proto"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="lint, compare with the committed stubs, write nothing")
    check = parser.parse_args().check
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        imports = write_imports(Path(scratch) / "imports.binpb")
        lint(sources, imports, Path(scratch) / "slipway.binpb")
        if not check:
            generate(sources, imports, ROOT)
            return 0
        fresh = Path(scratch) / "stubs"
        fresh.mkdir()
        generate(sources, imports, fresh)
        return report_differences(fresh)


def write_imports(path: Path) -> Path:
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().MergeFromString(validate_pb.desc().proto.to_binary())
    path.write_bytes(files.SerializeToString())
    return path


def protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], cwd=ROOT, check=True)


def lint(sources: list[str], imports: Path, image: Path) -> None:
    protoc(
        "-I.",
        f"--descriptor_set_in={imports}",
        f"--descriptor_set_out={image}",
        "--include_imports",
        "--include_source_info",
        *sources,
    )
    subprocess.run([BIN / "buf", "lint", image, "--config", ROOT / "buf.yaml"], check=True)


def generate(sources: list[str], imports: Path, out: Path) -> None:
    protoc(
        "-I.",
        f"--descriptor_set_in={imports}",
        f"--python_out={out}",
        f"--plugin=protoc-gen-mypy={BIN / 'protoc-gen-mypy'}",
        f"--mypy_out=quiet:{out}",
        VALIDATE,
        *sources,
    )
    protoc(
        "-I.",
        f"--descriptor_set_in={imports}",
        f"--grpc_python_out={out}",
        f"--plugin=protoc-gen-mypy_grpc={BIN / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out=quiet,only_async:{out}",
        *(source for source in sources if source.endswith("_service.proto")),
    )


def report_differences(fresh: Path) -> int:
    made = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*.py*")}
    kept = {path.relative_to(ROOT) for path in ROOT.rglob("*_pb2*.py*") if "__pycache__" not in path.parts}
    stale = sorted(
        (made ^ kept) | {name for name in made & kept if not filecmp.cmp(fresh / name, ROOT / name, shallow=False)}
    )
    for name in stale:
        print(f"{name}: not what the protos say; run `make protos`", file=sys.stderr)  # noqa: T201 - a command's output
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
