"""Benchmark of one photo on one core: exported files by ONNX Runtime beside the bare network in torch.

From a decoded picture to the answer: resize, compute, most probable class. float32, int8 and torch take turns photo by
photo, on one thread each, in a process that is bound to one core where the system can do that. Printed: the median and
the 99th percentile of each in ms, and the ratio to torch of the same photo.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from sections.arguments import parse_count
from sections.figures import Row, describe_machine, print_markdown, print_row

from productrec.runtime import prepare_process

_ROOT = Path(__file__).resolve().parents[1]
_WARM_UP = 20  # photos before the first that counts
_CALIBRATED = 200  # images at most
_CLASSES, _EMBEDDING_DIM = 100, 256  # of a network that no run has trained

Answer = Callable[[np.ndarray], int]


def main() -> None:
    """Export, measure in turns, print the figures and a Markdown table of them."""
    options = _parse_arguments()
    prepare_process()  # as the command line does
    print(f"command: python benchmarks/export.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        photos = _read_photos(options.images_of, Path(name), options.photos)
        answers, setting = _build_answers(options, Path(name), photos)
        seen = _measure(answers, photos, options.repeats)
    print(f"setting: {setting}, {len(photos)} photos, {options.repeats} times each of the three")
    rows = [Row("export", f"{name}, one photo, ms", _show(np.array(values) * 1e3)) for name, values in seen.items()]
    for name in [name for name in seen if name != "torch"]:
        ratios = np.array(seen["torch"]) / np.array(seen[name])
        low, middle, high = np.percentile(ratios, (5, 50, 95))
        seen_ratio = f"{middle:.2f} ({low:.2f} to {high:.2f} for 90 of 100 photos)"
        rows.append(Row("export", f"torch's time / that of {name}, same photo", seen_ratio))
    for row in rows:
        print_row(row)
    print_markdown(rows)


def _build_answers(
    options: argparse.Namespace, work: Path, photos: Sequence[np.ndarray]
) -> tuple[dict[str, Answer], str]:
    """What answers a decoded picture with the position of its class, by name; and of which network, in words."""
    import torch

    from productrec.assembly.network import load_network
    from productrec.data.views import resize_square
    from productrec.exported import ExportedModel
    from productrec.models.export import BATCH, export_onnx
    from productrec.models.export_notes import ExportNotes
    from productrec.models.onnx_file import quantise, write_onnx
    from productrec.models.recognizer import build_recognizer
    from productrec.training.run.checkpoint import load_checkpoint

    if options.run is not None:
        checkpoint = load_checkpoint(options.run / "checkpoints" / "best")
        network, side_px = load_network(checkpoint), int(checkpoint.recipe["train"]["side_px"])
        backbone, classes = str(checkpoint.recipe["model"]["backbone"]), len(checkpoint.class_ids)
    else:
        backbone, side_px, classes = options.backbone, options.side_px, _CLASSES
        network = build_recognizer(
            backbone=backbone,
            pretrained=not options.random,
            side_px=side_px,
            pooling="gem",
            gem_power=3.0,
            embedding_dim=_EMBEDDING_DIM,
            class_count=classes,
        ).eval()
    names = [str(number) for number in range(classes)]
    notes = ExportNotes(list(range(classes)), names, names, side_px, "", "benchmark", backbone, "float32", "")
    squares = [resize_square(photo, side_px)[None] for photo in photos[:_CALIBRATED]]
    write_onnx(export_onnx(network, side_px, name=backbone), work / "float32.onnx", notes, batch=BATCH)
    quantise(work / "float32.onnx", work / "int8.onnx", notes, squares)
    sizes = {name: (work / f"{name}.onnx").stat().st_size / 1e6 for name in ("float32", "int8")}
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.suppress(AttributeError, OSError):  # not on every system
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def answer_in_torch(photo: np.ndarray) -> int:
        with torch.inference_mode():
            square = torch.from_numpy(resize_square(photo, side_px))[None]
            return int(network(square).logits.softmax(dim=1).argmax())

    def load(name: str) -> Answer:
        model = ExportedModel(work / f"{name}.onnx", threads=1)
        return lambda photo: int(model.recognise([photo]).probabilities.argmax())

    answers = {"ONNX Runtime float32": load("float32"), "ONNX Runtime int8": load("int8"), "torch": answer_in_torch}
    apart = sum(answers["ONNX Runtime float32"](photo) != answer_in_torch(photo) for photo in photos)
    if apart > len(photos) // 100:
        raise RuntimeError(f"the float32 file must answer as the network does; {apart} of {len(photos)} answers differ")
    words = f"{backbone}, {side_px} px, {classes} classes, files of {sizes['float32']:.1f} and {sizes['int8']:.1f} MB"
    return answers, words


def _measure(answers: dict[str, Answer], photos: Sequence[np.ndarray], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way for each photo, in turns that begin with another way each time."""
    seen: dict[str, list[float]] = {name: [] for name in answers}
    names = list(answers)
    for number in range(-_WARM_UP, repeats * len(photos)):
        photo = photos[number % len(photos)]
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            answers[name](photo)
            seconds = time.perf_counter() - started
            if number >= 0:
                seen[name].append(seconds)
    return seen


def _show(values: np.ndarray) -> str:
    return f"median {np.median(values):.2f}, 99th percentile {np.percentile(values, 99):.2f}"


def _read_photos(source: Path, work: Path, count: int) -> list[np.ndarray]:
    """Decoded pictures of a folder; drawn ones where it does not exist."""
    from sections.predict import list_images

    from productrec.data.decode import decode_image, read_image_bytes

    paths = list_images(source if (source / "images").is_dir() else None, work, count)
    return [decode_image(read_image_bytes(path), path) for path in paths]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", type=Path, help="run folder whose network is measured (none: --backbone with new heads)"
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="without --run (tf_efficientnet_lite0)")
    parser.add_argument("--side-px", type=parse_count, default=224, help="without --run (224)")
    parser.add_argument(
        "--random", action="store_true", help="without --run: random weights instead of pretrained ones"
    )
    parser.add_argument("--photos", type=parse_count, default=200, help="photos at most (200)")
    parser.add_argument("--repeats", type=parse_count, default=5, help="times that each photo is seen (5)")
    parser.add_argument(
        "--images-of",
        type=Path,
        default=_ROOT.parent / "shared" / "data" / "grocery",
        help="folder that holds images/*.jpg; drawn ones where it does not exist (../shared/data/grocery)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
