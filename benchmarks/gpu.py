"""Benchmark of one accelerator: first whether it computes what the CPU computes, then how fast the whole pipeline is.

Compares embeddings, logits, losses, a training step, titles and the search with the CPU's; measures pair losses, and
training steps beside timm's; then trains
the grocery recipe with a larger backbone for about ``--minutes``, predicts with views, and prints rates, peak memory
and validation scores.
Without an accelerator it says so and ends. Exit code 1 where a comparison fails; what follows it is measured all the
same. ``--device cpu --quick`` rehearses the whole flow in a minute (its comparisons are of the CPU with itself).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sections.figures import Row, describe_machine, print_markdown, print_row

from productrec.errors import ArtifactError
from productrec.runtime import prepare_process

if TYPE_CHECKING:
    import torch

    from productrec.recipe import Recipe

_ROOT = Path(__file__).resolve().parents[1]
_QUICK = (
    "train.side_px=64",
    "train.batch_size=16",
    "predict.batch_size=16",
    "train.workers=1",
    "train.warmup_epochs=0",
)
_MOST_VIEWED = 4096


def main() -> int:
    """Compare, train, predict, print; returns the exit code."""
    options = _parse_arguments()
    prepare_process()  # as the command line does
    import torch

    if options.device == "auto" and not torch.cuda.is_available():
        print("no GPU that torch can use: nothing measured. Rehearse with --device cpu --quick.")
        return 0
    device = torch.device("cuda" if options.device == "auto" else options.device)
    figures: dict[str, Any] = {"machine": describe_machine(), "device": _describe_device(device)}
    print(f"command: python benchmarks/gpu.py {' '.join(sys.argv[1:])}\nmachine: {figures['machine']}")
    print(f"device: {figures['device']}", flush=True)

    from sections.agreement import check_agreement
    from sections.device_training import measure_device_training
    from sections.pair_losses import measure_pair_losses
    from sections.titles_agreement import compare_titles

    from productrec.runtime import choose_dtype

    measures: tuple[Callable[[], list[Row]], ...] = (
        partial(check_agreement, device),
        partial(_without_tf32, compare_titles, device),
        partial(measure_pair_losses, device, quick=options.quick),
        partial(measure_device_training, device, choose_dtype("auto", device), quick=options.quick),
    )
    rows: list[Row] = []
    for measure in measures:
        seen = measure()
        rows += seen
        for row in seen:
            print_row(row)
    failed = [row.what for row in rows if row.holds is False]
    if failed:
        print(f"FAILED: {device} does not agree with the CPU in {len(failed)}: {'; '.join(failed)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="productrec-benchmark-") as name:
        rows += _measure_pipeline(options, Path(name), device, figures)
    figures["rows"] = [asdict(row) for row in rows]
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")
    print_markdown(rows)
    failed = [row.what for row in rows if row.holds is False]
    if failed:
        print(f"\nFAILED: {'; '.join(failed)}")
    return 1 if failed else 0


def _without_tf32(compare: Callable[[torch.device], list[Row]], device: torch.device) -> list[Row]:
    from sections.agreement import without_tf32

    with without_tf32():
        return compare(device)


def _measure_pipeline(
    options: argparse.Namespace, work: Path, device: torch.device, figures: dict[str, Any]
) -> list[Row]:
    """Train and predict in ``work``; every figure also lands in ``figures``."""
    from sections.rates import measure_loader_rate, measure_step_rate

    from productrec.data.table import load_table
    from productrec.pipeline.play import ingest_recipe
    from productrec.pipeline.predict import predict_runs
    from productrec.pipeline.score_table import print_scores
    from productrec.pipeline.select import select_runs
    from productrec.runtime import choose_dtype
    from productrec.stages.submit import submit_recipe
    from productrec.stages.train import run_train

    recipe = _load_recipe(options, work, device)
    ingest_recipe(recipe)
    trained = load_table(recipe.table).select(recipe.train.splits)
    class_count, image_count = trained["label"].nunique(), len(trained)
    dtype = choose_dtype(recipe.train.precision, device)
    figures |= {"dtype": str(dtype), "classes": class_count, "training_images": image_count}

    _reset_peak(device)
    rates = {
        "step alone": measure_step_rate(recipe, class_count, device, dtype),
        "loader alone": measure_loader_rate(recipe, device, most_seconds=2 if options.quick else 10),
    }
    calibration = run_train(_change_epochs(recipe, "calibration", 2 if options.quick else 5)).folder
    epoch_seconds = _read_epoch_seconds(calibration)
    shutil.rmtree(calibration)
    epochs = 1 if options.quick else max(2, round(options.minutes * 60 / epoch_seconds))
    recipe = _change_epochs(recipe, recipe.name, epochs)
    figures["recipe"] = recipe.dump()
    steps = max(1, image_count // recipe.train.batch_size)
    print(f"{steps / epoch_seconds:.2f} steps a second, {epoch_seconds:.2f} s an epoch: {epochs} epochs", flush=True)

    started = time.perf_counter()
    run = run_train(recipe).folder
    minutes = (time.perf_counter() - started) / 60
    rates["epoch with loading, validation and checkpoints"] = (
        steps * recipe.train.batch_size / (epoch_seconds if epochs < 2 else _read_epoch_seconds(run))
    )
    peaks = {"training": _read_peak_gib(device)}

    _reset_peak(device)
    for views in ("plain", "full"):
        count, seconds = _time_views(recipe, run, work / f"viewed-{views}", views, device, dtype)
        rates[f"prediction, {views} views"] = count / seconds
    started = time.perf_counter()
    predicted = predict_runs(select_runs(recipe))
    predict_seconds = time.perf_counter() - started
    peaks["prediction"] = _read_peak_gib(device)
    print_scores(predicted)
    submit_recipe(recipe, predicted.folder / "test", out=options.submission or work / "submission.csv")
    exports = _export(recipe, run)

    scores = {way: asdict(one) for way, one in predicted.validation[run.name].items()}
    figures |= {"epochs": epochs, "training_minutes": minutes, "predict_stage_seconds": predict_seconds}
    figures |= {"images_per_second": rates, "peak_gib": peaks, "validation": scores}
    setting = f"{recipe.model.backbone}, {recipe.train.side_px} px, batch {recipe.train.batch_size}"
    rows = [Row("speed", f"{what} ({setting})", f"{rate:,.0f} images per second") for what, rate in rates.items()]
    rows.append(Row("speed", f"training, {epochs} epochs of {image_count:,} images", f"{minutes:.1f} minutes"))
    rows.append(Row("speed", "predict stage, all splits and ways", f"{predict_seconds:.1f} s"))
    rows += [Row("memory", f"peak in {what}", f"{peak:.2f} GiB") for what, peak in peaks.items() if peak is not None]
    for way, one in scores.items():
        seen = f"top-1 accuracy {100 * one['top_1_accuracy']:.1f} %, top-3 error {100 * one['top_3_error']:.1f} %"
        rows.append(Row("validation", way, seen))
    return rows + exports


def _export(recipe: Recipe, run: Path) -> list[Row]:
    """The trained run as files; each is compared with the run as it is written, on the CPU, and refused if unequal."""
    from importlib.util import find_spec

    from productrec.stages.export import TOLERANCE, run_export

    rows = []
    for to in ("torch", "onnx"):
        what = f"exported to {to}, compared with the run on {recipe.model.backbone}"
        if to == "onnx" and any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
            rows.append(Row("export", what, "its libraries are not installed here"))
            continue
        try:
            seen = run_export(run, recipe, to=to).agreement
        except ArtifactError as error:
            rows.append(Row("export", what, str(error), holds=False))
            continue
        shown = f"embeddings {seen.embedding:.1e}, probabilities {seen.probability:.1e}, {seen.images} images"
        rows.append(Row("export", what, shown, f"<= {TOLERANCE:g}", seen.is_within(TOLERANCE)))
    return rows


def _load_recipe(options: argparse.Namespace, work: Path, device: torch.device) -> Recipe:
    from sections.recipes import load_single_recipe

    source = options.data
    if source is None:
        from productrec.demo.drawn.competition import draw_competition

        skus, train_images = (6, 8) if options.quick else (60, 40)
        source = draw_competition(work / "drawn", skus=skus, train_images=train_images, max_side_px=256).folder
    places = [f"data.source={source}", f"data.table={work / 'table'}", f"runs={work / 'runs'}", f"device={device}"]
    sizes = [f"train.side_px={options.side_px}", "predict.tta=full", *(_QUICK if options.quick else ())]
    if device.type != "cpu":  # the recipes in pipelines/ are set for one
        sizes += ["train.precision=auto", "train.workers=-1"]
    backbone = options.backbone or ("regnetx_002" if options.quick else "resnet50")
    return load_single_recipe(options.recipe, backbone=backbone, overrides=[*places, *sizes, *options.overrides])


def _change_epochs(recipe: Recipe, name: str, epochs: int) -> Recipe:
    return recipe.model_copy(update={"name": name, "train": recipe.train.model_copy(update={"epochs": epochs})})


def _read_epoch_seconds(run: Path) -> float:
    """Seconds an epoch takes, validation and checkpoints included, once a training is going."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [float(json.loads(line)["seconds"]) for line in lines]
    return max(0.05, (seconds[-1] - seconds[0]) / (len(seconds) - 1))  # the log counts tenths


def _time_views(
    recipe: Recipe, run: Path, out: Path, views: str, device: torch.device, dtype: torch.dtype
) -> tuple[int, float]:
    """How many test images were embedded through ``views`` from file to disk, and in how many seconds."""
    from sections.predict import embed_images

    from productrec.assembly.network import load_network
    from productrec.assembly.resources import choose_loader_workers
    from productrec.data.table import load_table
    from productrec.runtime import synchronise
    from productrec.training.run.checkpoint import load_checkpoint

    network = load_network(load_checkpoint(run / "checkpoints" / "best")).to(device)
    table = load_table(recipe.table)
    paths = table.get_paths(table.select(["test"]))[:_MOST_VIEWED]
    embed = partial(
        embed_images,
        network,
        views=views,
        side_px=recipe.train.side_px,
        batch_size=recipe.predict.batch_size,
        workers=choose_loader_workers(recipe, device),
        device=device,
        dtype=dtype,
    )
    embed(paths[: recipe.predict.batch_size], out.with_name(f"{out.name}-warm-up"))
    synchronise(device)
    started = time.perf_counter()
    embed(paths, out)
    return len(paths), time.perf_counter() - started


def _describe_device(device: torch.device) -> str:
    import torch

    if device.type != "cuda":
        return f"{device}, torch {torch.__version__}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _read_peak_gib(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**30


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe to change")
    parser.add_argument("--data", type=Path, help="folder of a competition's files (drawn images)")
    parser.add_argument("--minutes", type=float, default=6.0, help="how long training should last (6)")
    parser.add_argument("--side-px", type=int, default=160, help="side of the square the network sees (160)")
    parser.add_argument("--backbone", help="any timm model, from random weights (resnet50)")
    parser.add_argument("--device", default="auto", help="auto (CUDA or nothing), cuda, cuda:1, mps, cpu (auto)")
    parser.add_argument("--quick", action="store_true", help="one epoch of a tiny case, to rehearse the flow")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--submission", type=Path, help="keep the CSV of the test images here")
    parser.add_argument(
        "--recipe",
        type=Path,
        default=_ROOT / "pipelines" / "grocery_scratch.yaml",
        help="what to train (grocery_scratch.yaml)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
