"""Answers for a folder of images by the bundle that this file lies in, without a network: `productrec bundle` wrote it.

python run.py --images FOLDER --sample sample_submission.csv --out submission.csv
"""

import argparse
import hashlib
import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Distributions that own the same folder of modules: where one is, the other must not be installed over it.
RIVALS = {"faiss_cpu": "faiss_gpu", "opencv_python_headless": "opencv_python"}


def compute_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_files(files: dict[str, dict[str, object]]) -> None:
    """End with a line where a file of the bundle is missing or is not what was written."""
    bad = [name for name, known in files.items() if not (HERE / name).is_file()]
    bad = bad or [name for name, known in files.items() if compute_digest(HERE / name) != known["sha256"]]
    if bad:
        sys.exit(
            f"error: {HERE}: must hold every file as bundle.json lists it; {len(bad)} are missing or damaged, the "
            f"first {bad[0]}. Copy the bundle again."
        )


def install_missing(wheels: Path, version: str) -> None:
    """Install those wheels whose library is not here at all; productrec in the bundle's own version."""

    def is_missing(wheel: Path) -> bool:
        name = wheel.name.split("-")[0]
        if not has(name):
            return not has(RIVALS.get(name, name))
        return name == "productrec" and (metadata.version(name) != version or find_spec(name) is None)

    missing = [str(wheel) for wheel in sorted(wheels.glob("*.whl")) if is_missing(wheel)]
    if missing:
        print(f"installing {len(missing)} wheels of the bundle", flush=True)
        # By name, without asking for what they need: libraries that are here in another version stay as they are.
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*command, "--disable-pip-version-check", *missing], check=True)


def has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the submission for a folder of images.")
    parser.add_argument("--images", required=True, help="folder of the images")
    parser.add_argument("--out", default="submission.csv", help="CSV to write; default submission.csv")
    parser.add_argument("--sample", help="sample submission; without one: a line a file, with names and probabilities")
    # The rest is what else `productrec predict` takes: --fill-missing, --replace, device=cpu.
    known, more = parser.parse_known_args()
    try:
        bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {HERE / 'bundle.json'}: must list the bundle's files; got {error}. Copy the bundle again.")
    check_files(bundle["files"])
    install_missing(HERE / "wheels", bundle["versions"]["productrec"])
    for name, version in bundle["versions"].items():
        if name in ("torch", "timm", "numpy") and has(name) and metadata.version(name) != version:
            print(f"note: {name} is {metadata.version(name)} here, and was {version} where the bundle was made")
    command = [sys.executable, "-m", "productrec", "predict", str(HERE)]
    command += ["--images", known.images, "--out", known.out]
    command += ["--sample", known.sample] if known.sample else []
    sys.exit(subprocess.run([*command, *more]).returncode)


if __name__ == "__main__":
    main()
