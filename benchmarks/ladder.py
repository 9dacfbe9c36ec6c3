"""A ladder of backbones by accuracy and cost, as the rows of the table in docs/planning.md.

Parameters and multiply-adds are counted here, of timm's network with its classifier of 1,000 classes; top-1 accuracy is
what timm publishes of the weights that `model.pretrained: true` takes, at the side where it was measured. Images a
second are those of training steps as a recipe has them (forward, backward, AdamW, multi-similarity beside
cross-entropy), from random weights, in the number type that training would choose on this machine; the median of some
steps after a first.
"""

from __future__ import annotations

import argparse
import gc
import sys
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from sections.figures import compute_spread, describe_machine
from sections.step import CLASSES, build_ready_trainer, build_turn, draw_batch
from torch.utils.flop_counter import FlopCounterMode

from productrec.assembly.precision import choose_precision
from productrec.recipe import build_recipe
from productrec.runtime import choose_device, keep_freed_memory, prepare_process

_GAP = "(run `python benchmarks/ladder.py`)"


@dataclass(frozen=True)
class Rung:
    """A backbone, the tag of its pretrained weights, and their top-1 accuracy in percent at a side in pixels.

    The accuracy stands in results/results-imagenet.csv of timm (huggingface/pytorch-image-models), on the validation
    images of ImageNet-1k.
    """

    backbone: str
    weights: str
    top_1: float
    side_px: int


LADDER = (
    Rung("regnetx_002", "pycls_in1k", 68.746, 224),
    Rung("resnet10t", "c3_in1k", 68.358, 224),
    Rung("mobilenetv3_large_100", "ra_in1k", 75.766, 224),
    Rung("tf_efficientnet_lite0", "in1k", 74.830, 224),
    Rung("efficientnet_b0", "ra_in1k", 77.694, 224),
    Rung("tf_efficientnet_lite2", "in1k", 77.464, 260),
    Rung("resnet50", "a1_in1k", 81.214, 288),
    Rung("vit_small_patch16_224", "augreg_in21k_ft_in1k", 81.384, 224),
    Rung("convnext_tiny", "in12k_ft_in1k", 84.450, 288),
    Rung("tf_efficientnetv2_s", "in21k_ft_in1k", 84.288, 384),
    Rung("convnext_base", "fb_in22k_ft_in1k", 86.274, 288),
    Rung("eva02_base_patch14_448", "mim_in22k_ft_in22k_in1k", 88.692, 448),
)


def main() -> None:
    """Print the rows, each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", help="those of the ladder to show (all)")
    parser.add_argument("--side-px", type=int, default=224, help="side of the squares in the timed steps (224)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (16)")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps, after a first (3)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-timing", action="store_true", help="leave the last column open")
    options = parser.parse_args()
    unknown = set(options.backbones) - {rung.backbone for rung in LADDER}
    if unknown:
        parser.error(f"not on the ladder: {', '.join(sorted(unknown))}")
    prepare_process()
    print(f"command: python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}, torch {torch.__version__}, timm {timm.__version__}")
    print(f"steps: {options.side_px} px, batch {options.batch}, {torch.get_num_threads()} threads\n")
    columns = ["`model.backbone`", "weights", "million parameters", f"G multiply-adds, {options.side_px} px"]
    columns += ["top-1, %", "at px", "G multiply-adds there", "seen here, images/s"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for rung in LADDER:
        if not options.backbones or rung.backbone in options.backbones:
            seen = _GAP if options.no_timing else measure_step(rung, options)
            print(f"| {' | '.join([*describe_rung(rung, options.side_px), seen])} |", flush=True)
            gc.collect()


def describe_rung(rung: Rung, side_px: int) -> list[str]:
    """All columns of a backbone but the last; ``side_px`` is that of the steps."""
    default = timm.get_pretrained_cfg(rung.backbone).tag  # type: ignore[union-attr]
    if default != rung.weights:
        raise SystemExit(
            f"{rung.backbone}: this timm takes the weights {default}, not {rung.weights}; mend the ladder."
        )
    _, steps = count_costs(rung.backbone, side_px)
    parameters, there = count_costs(rung.backbone, rung.side_px)
    return [
        f"`{rung.backbone}`",
        rung.weights,
        f"{parameters / 1e6:.1f}",
        f"{steps / 1e9:.2f}",
        f"{rung.top_1:.1f}",
        str(rung.side_px),
        f"{there / 1e9:.2f}",
    ]


def count_costs(backbone: str, side_px: int) -> tuple[int, float]:
    """Parameters of a network with its classifier, and multiply-adds of one image's forward pass."""
    try:
        network = timm.create_model(backbone, img_size=side_px)
    except TypeError:  # of a network that takes squares of any size
        network = timm.create_model(backbone)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    network.eval().to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, side_px, side_px, device="meta"))
    return parameters, counter.get_total_flops() / 2  # an addition and a multiplication are counted apart


def measure_step(rung: Rung, options: argparse.Namespace) -> str:
    """Images a second of training steps, their spread, and the number type."""
    values = {
        "name": "ladder",
        "device": options.device,
        "model": {"backbone": rung.backbone, "pretrained": False},
        "train": {"side_px": options.side_px, "batch_size": options.batch},
    }
    recipe = build_recipe(values)
    device = choose_device(recipe.device)
    keep_freed_memory(device)
    dtype = choose_precision(recipe, device, use="train")
    trainer = build_ready_trainer(recipe, CLASSES, device, dtype)
    images, labels = (one.to(device) for one in draw_batch(recipe))
    turn = build_turn(lambda: trainer.run_step(images, labels)["loss"], 1 if device.type == "cpu" else 20, device)
    turn()
    rates = compute_spread([options.batch / turn() for _ in range(options.repeats)])
    return f"{rates.show(1)}, {str(dtype).removeprefix('torch.')}"


if __name__ == "__main__":
    main()
