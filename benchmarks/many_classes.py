"""Benchmark of the classification head in shards: time and memory of a step with very many classes.

On one process and on two, with all classes and with a sample of them, beside the plain head.

A step is head, cross-entropy, backward and AdamW on random features; no backbone. Each case runs in processes of its
own; memory is the highest of one process beyond what it held before the head was made.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

import torch
from sections.figures import describe_machine
from torch import Tensor, nn

from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.models.recognizer import ClassificationHead
from productrec.runtime import keep_freed_memory
from productrec.training.ranks.group import join_ranks, leave_ranks
from productrec.training.ranks.sharded_head import ShardedHead

_CASES = (("plain", 1, 1.0), ("sharded", 1, 1.0), ("sharded", 2, 1.0), ("sharded", 1, 0.05), ("sharded", 2, 0.05))


def main() -> None:
    """Measure every case and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256, help="images of all processes together")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("HEAD", "SHARE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        _measure(options, *options.run)
        return
    print(f"command: python benchmarks/many_classes.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"machine: {describe_machine()}\n")
    print(f"{options.classes:,} classes, {options.features} features, batch {options.batch}, float32\n")
    print("| head | processes | compared with | seconds a step | memory of a process, MB |\n|---|---|---|---|---|")
    for name, size, share in _CASES:
        seen = _run(size, name, share)
        seconds, memory = (max(one[key] for one in seen) for key in ("seconds", "memory_mb"))
        print(f"| {name} | {size} | {100 * share:g} % | {seconds:.2f} | {memory:,.0f} |", flush=True)


def _run(size: int, name: str, share: float) -> list[dict[str, float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    threads = max(1, (os.cpu_count() or 1) // size)
    for rank in range(size):
        place = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {key: str(value) for key, value in place.items()} | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, *sys.argv, "--run", name, str(share)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name} on {size} failed")
    return [json.loads(text) for text in said]


def _measure(options: argparse.Namespace, name: str, share: str) -> None:
    device = torch.device("cpu")
    keep_freed_memory(device)
    ranks = join_ranks(device, timeout_minutes=5)
    torch.manual_seed(0)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    head: nn.Module
    if name == "plain":
        head = ClassificationHead(options.features, options.classes, 0.0)
    else:
        head = ShardedHead(options.features, options.classes, dropout=0.0, negative_share=float(share), ranks=ranks)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    count = options.batch // ranks.size
    torch.manual_seed(ranks.rank)
    features, labels = torch.randn(count, options.features), torch.randint(options.classes, (count,))

    def step() -> float:
        started = time.perf_counter()
        said: Tensor = head(features)
        if isinstance(head, ShardedHead):
            loss = head.compute_loss(said, labels, label_smoothing=0.1)
        else:
            loss = compute_classification_loss(said, labels, label_smoothing=0.1)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert torch.isfinite(loss)
        return time.perf_counter() - started

    step()
    seconds = statistics.median(step() for _ in range(options.steps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    leave_ranks()
    print(json.dumps({"seconds": seconds, "memory_mb": (peak - held) / 1024}))


if __name__ == "__main__":
    main()
