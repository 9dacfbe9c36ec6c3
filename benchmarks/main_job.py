"""Benchmark of the main job: starting, training, predicting and submitting, each beside a bare way to do the same.

Compares two things in one run, in turns, and prints ratios as median, lowest and highest. A missed ask is said, not
punished: the exit code is 0 unless something breaks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from sections.arguments import parse_count
from sections.figures import Row, describe_machine, print_markdown

from productrec.runtime import prepare_process

_ROOT = Path(__file__).resolve().parents[1]
_SECTIONS = {"start": 10, "step": 20, "predict": 5, "views": 3, "submit": 3}  # and how often each is repeated


def main() -> None:
    """Run the sections that were asked for and print their figures, then a Markdown table of them."""
    options = _parse_arguments()
    prepare_process()  # as the command line does; OMP_WAIT_POLICY=ACTIVE before the command undoes it
    wanted = [name for name in _SECTIONS if name in options.only]
    print(f"command: python benchmarks/main_job.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}", flush=True)
    rows: list[Row] = []
    for name in wanted:
        rows += _choose(name, options, options.repeats or _SECTIONS[name])()
    print_markdown(rows)


def _choose(name: str, options: argparse.Namespace, repeats: int) -> Callable[[], list[Row]]:
    """What measures a section; torch is imported for those alone that need it."""
    if name == "start":
        from sections.start import measure_start

        return lambda: measure_start(repeats)
    if name == "submit":
        from sections.submit import measure_submit

        return lambda: measure_submit(repeats)
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    overrides = [f"device={options.device}", "train.side_px=128", "train.batch_size=64"]
    if name == "step":
        from sections.step import measure_step

        return lambda: measure_step(options.recipe, backbone=options.backbone, overrides=overrides, repeats=repeats)
    source = options.images_of if (options.images_of / "images").is_dir() else None
    if name == "views":
        from sections.views import measure_views

        return lambda: measure_views(
            options.recipe, source=source, image_count=min(options.images, 256), repeats=repeats
        )
    from sections.predict import measure_predict

    return lambda: measure_predict(
        options.recipe,
        backbone=options.backbone,
        overrides=overrides,
        source=source,
        image_count=options.images,
        repeats=repeats,
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    turns = ", ".join(f"{name} {count}" for name, count in _SECTIONS.items())
    parser.add_argument(
        "--only", type=_parse_sections, default=list(_SECTIONS), help=f"sections, of {','.join(_SECTIONS)} (all)"
    )
    parser.add_argument("--repeats", type=parse_count, help=f"turns of a section ({turns})")
    parser.add_argument("--threads", type=parse_count, help="torch's threads (as many as it takes by itself)")
    parser.add_argument("--device", default="cpu", help="where step and predict run: cpu, cuda, mps, auto (cpu)")
    parser.add_argument("--backbone", default="regnetx_002", help="network of step and predict (regnetx_002)")
    parser.add_argument("--images", type=parse_count, default=1024, help="images of the predict section (1024)")
    parser.add_argument(
        "--images-of",
        type=Path,
        default=_ROOT.parent / "shared" / "data" / "grocery",
        help="folder that holds images/*.jpg; drawn ones where it does not exist (../shared/data/grocery)",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        default=_ROOT / "pipelines" / "grocery_scratch.yaml",
        help="losses, optimiser, clipping and average of step and predict (pipelines/grocery_scratch.yaml)",
    )
    return parser.parse_args()


def _parse_sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in _SECTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(_SECTIONS)}; got {text!r}")
    return names


if __name__ == "__main__":
    main()
