"""Benchmark of gradient caching: a large batch in chunks beside plain steps of one chunk, in time and in memory.

Each case runs in a process of its own, so that its peak is its own. Images are drawn and on the device already; the
loss is Multi-Similarity with mining beside cross-entropy. Time per image is compared in turns, memory as the highest
resident memory (on a GPU, the highest that torch allocated).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from sections.figures import compute_ratios, describe_machine

from productrec.assembly.trainer import build_trainer
from productrec.recipe import build_recipe
from productrec.runtime import choose_device, choose_dtype, keep_freed_memory

_CLASSES = 2019


def main() -> None:
    """Measure both cases in turns and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run", choices=("plain", "chunked"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(_measure(options)))
        return
    print(f"command: python benchmarks/large_batch.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n", flush=True)
    seen: dict[str, list[dict[str, float]]] = {"plain": [], "chunked": []}
    for _ in range(options.repeats):
        for name, found in seen.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--run", name]
            found.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    print("| case | seconds an image | peak, MB |\n|---|---|---|")
    for name, found in seen.items():
        size = options.chunk if name == "plain" else options.batch
        seconds = sorted(one["seconds"] for one in found)[len(found) // 2]
        print(f"| {name}, batch {size:,} | {seconds:.5f} | {max(one['peak_mb'] for one in found):,.0f} |")
    ratio = compute_ratios([one["seconds"] for one in seen["chunked"]], [one["seconds"] for one in seen["plain"]])
    more = max(one["peak_mb"] for one in seen["chunked"]) - max(one["peak_mb"] for one in seen["plain"])
    images = (options.batch - options.chunk) * 3 * options.side**2 / 2**20
    print(
        f"\ntime per image, chunked / plain: {ratio.show()} (asked at most 1.45); memory beyond plain {more:,.0f} MB, "
        f"of which the batch's own bytes are {images:,.0f} MB"
    )


def _measure(options: argparse.Namespace) -> dict[str, float]:
    is_plain = options.run == "plain"
    size = options.chunk if is_plain else options.batch
    recipe = build_recipe(
        {
            "name": "large",
            "model": {"backbone": options.backbone, "pretrained": False},
            "train": {
                "side_px": options.side,
                "batch_size": size,
                "chunk_size": 0 if is_plain else options.chunk,
                "ema_decay": 0.0,
            },
        }
    )
    device = choose_device(options.device)
    keep_freed_memory(device)
    torch.manual_seed(0)
    trainer = build_trainer(recipe, [4] * _CLASSES, 100, device=device, dtype=choose_dtype("auto", device))
    images = torch.randint(0, 256, (size, options.side, options.side, 3), dtype=torch.uint8)
    labels = torch.arange(size) // 4 % _CLASSES
    trainer.recognizer.train()
    trainer.run_step(images[: options.chunk], labels[: options.chunk])  # what is made once is made
    steps = 4 if is_plain else 1
    started = time.perf_counter()
    for _ in range(steps):
        loss = trainer.run_step(images, labels)["loss"].item()
    seconds = time.perf_counter() - started
    assert loss == loss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    return {"seconds": seconds / steps / size, "peak_mb": peak}


if __name__ == "__main__":
    main()
