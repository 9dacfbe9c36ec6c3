"""What a person reads of a plan: a table for each model, one for all of it, and a warning where it does not fit."""

from __future__ import annotations

import torch

from productrec.assembly.forecast import Work
from productrec.assembly.rehearsal import Phase
from productrec.console import print_table, warn
from productrec.runtime import count_cores
from productrec.stages.plan import MemberPlan, RecipePlan

_TIMED, _COMPUTED, _SEEN = "timed here", "computed", "seen here"
_COLUMNS = ("", "", "how it is known")
_Row = tuple[str, str, str]


def print_plan(plan: RecipePlan) -> None:
    """Print a plan, and warn of what does not fit."""
    for name, member in plan.members.items():
        rows = [*_list_training(member), *_list_prediction(member), *_list_memory(member), *_list_disk(member)]
        print_table(f"{name}: {_describe_setting(member)}", _COLUMNS, rows, wrap_last=True)
    print_table("in all, and what this machine has", _COLUMNS, _list_whole(plan), wrap_last=True)
    for line in list_warnings(plan):
        warn(line)


def list_warnings(plan: RecipePlan) -> list[str]:
    """A line for each thing that does not fit this machine."""
    lines = []
    if plan.missing_bytes:
        lines.append(
            f"disk: {describe_bytes(plan.missing_bytes)} are lacking: {describe_bytes(plan.written_bytes)} will be "
            f"written, {describe_bytes(plan.spare_bytes)} more while a checkpoint is, and "
            f"{describe_bytes(plan.free_disk)} are free. Free some, or name another disk with runs=FOLDER."
        )
    gallery = max(member.gallery_bytes for member in plan.members.values())
    if plan.free_memory is not None and gallery > plan.free_memory:
        lines.append(
            f"memory: prediction holds {describe_bytes(gallery)} of embeddings; {describe_bytes(plan.free_memory)} are "
            "free. Lower model.embedding_dim, or predict on another machine."
        )
    return lines


def describe_bytes(count: int) -> str:
    """GiB, or MiB or KiB where it is little, to about three digits."""
    units = {30: "GiB", 20: "MiB", 10: "KiB"}
    size, unit = next((size, unit) for size, unit in units.items() if count >= 2**size // 10 or size == 10)
    value = count / 2**size
    return f"{value:,.{2 if unit == 'GiB' and value < 10 else 1}f} {unit}"


def describe_work(work: Work) -> str:
    """A range of hours, or of minutes or seconds where they are few."""
    size, unit = next(
        (size, unit)
        for size, unit, least in ((3600, "hours", 5400), (60, "minutes", 90), (1, "seconds", 0))
        if work.longest >= least
    )
    digits = 1 if work.longest / size < 9.95 else 0  # the same for both ends
    low, high = (f"{seconds / size:.{digits}f}" for seconds in (work.shortest, work.longest))
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _describe_setting(member: MemberPlan) -> str:
    train, resources = member.recipe.train, member.training
    place = f"{resources.device} {_name(resources.dtype)}"
    if resources.device.type == "cpu":
        place += f", {_count(torch.get_num_threads(), 'thread')}"
    return (
        f"{member.recipe.model.backbone}, {train.side_px} px, batch {train.batch_size}, {place}, "
        f"{_count(resources.workers, 'loader process', 'es')}"
    )


def _list_training(member: MemberPlan) -> list[_Row]:
    recipe, seen = member.recipe, member.rehearsal
    epochs = recipe.train.epochs
    rows = [
        ("training images", f"{seen.images:,} of {seen.classes:,} classes", f"{_COMPUTED} from {recipe.table}"),
        ("steps", f"{seen.steps_per_epoch:,} an epoch, {seen.steps_per_epoch * epochs:,} in all", _COMPUTED),
    ]
    for phase, timing in seen.steps.items():
        spread = f"{_round(timing.shortest)} to {_round(timing.longest)} s, " if timing.count > 1 else ""
        times = "once" if timing.count == 1 else f"{timing.count} times"
        rows.append(
            (
                f"network{_name_phase(member, phase)}",
                f"{_round(timing.seconds)} s a step, {_round(seen.batch_images / timing.seconds)} images/s",
                f"{_TIMED} ({spread}{times})",
            )
        )
    rows.append(("loading", f"{_round(seen.loaded)} images/s", f"{_TIMED}, {recipe.train.augmentation} augmentation"))
    for name, count in seen.looks.items():
        rows.append((name, f"{count:,} images", f"{_COMPUTED}; they go forward through the plain view"))
    how = _describe_limit(member, member.train_work)
    if recipe.train.patience:
        how += "; train.patience may end it sooner"
    return [*rows, ("training takes", describe_work(member.train_work), how)]


def _list_prediction(member: MemberPlan) -> list[_Row]:
    seen = member.rehearsal
    types = {dtype for _, dtype in seen.passes}
    rows = []
    for (side_px, dtype), seconds in seen.passes.items():
        name = f"network forward, {side_px} px{f', {_name(dtype)}' if len(types) > 1 else ''}"
        rows.append((name, f"{_round(1 / seconds)} images/s", f"{_TIMED}, one view of an image"))
    for views, rate in seen.viewed.items():
        rows.append((f"loading, {views} views", f"{_round(rate)} images/s", f"{_TIMED}, all views of an image"))
    for forward in member.forwards:
        count = f"{forward.images:,} x {forward.views} views = {forward.images * forward.views:,}"
        rows.append((f"forward passes, {forward.split}", count, f"{_COMPUTED}; {forward.preset}"))
    how = f"{_describe_limit(member, member.predicting)}; search and vote come on top"
    return [*rows, ("embedding takes", describe_work(member.predicting), how)]


def _list_memory(member: MemberPlan) -> list[_Row]:
    seen = member.rehearsal
    rows = []
    if seen.step_bytes is not None:
        what = f"{_COMPUTED}: gradients, moments, what {_count(seen.step_bytes.seen, 'image')} leave for the way back"
        rows.append(("memory of a step, at least", describe_bytes(seen.step_bytes.total), what))
    if member.training.is_on_gpu:
        rows.append(("most device memory held", describe_bytes(seen.device_peak), f"{_SEEN} in the timed steps"))
    return [
        *rows,
        ("most memory of the process", describe_bytes(seen.host_peak), f"{_SEEN} by the last step, libraries and all"),
        ("gallery in prediction", describe_bytes(member.gallery_bytes), _COMPUTED),
    ]


def _list_disk(member: MemberPlan) -> list[_Row]:
    hows = {"checkpoints": f"{_COMPUTED}: best, last and the one before, with moments and averages"}
    if member.recipe.train.soup:
        hows["checkpoints"] += f", and the newest {member.recipe.train.soup}"
    return [
        (f"disk: {name}", describe_bytes(count), hows.get(name, _COMPUTED)) for name, count in member.artifacts.items()
    ]


def _list_whole(plan: RecipePlan) -> list[_Row]:
    members = list(plan.members.values())
    training = sum((member.train_work for member in members[1:]), members[0].train_work)
    predicting = sum((member.predicting for member in members[1:]), members[0].predicting)
    how = f"{_COMPUTED}: least where loading hides behind the network, most where they take turns"
    turns = "; one member after the other (--jobs 1)" if len(members) > 1 else ""
    rows = [
        ("training takes", describe_work(training), f"{how}{turns}"),
        ("embedding takes", describe_work(predicting), how),
    ]
    if plan.load is not None:
        rows.append(
            ("load before", f"{plan.load:.1f} on {count_cores()} cores", f"{_SEEN}; with other work all takes longer")
        )
    if plan.free_memory is not None:
        rows.append(("free memory", describe_bytes(plan.free_memory), f"{_SEEN}, before anything was built"))
    if plan.free_device is not None:
        rows.append(("free device memory", describe_bytes(plan.free_device), f"{_SEEN}, before anything was built"))
    if plan.ensemble_bytes:
        rows.append(("disk: ensemble", describe_bytes(plan.ensemble_bytes), _COMPUTED))
    spare = f", and {describe_bytes(plan.spare_bytes)} more while a checkpoint is written" if plan.spare_bytes else ""
    rows += [
        ("disk: to be written", describe_bytes(plan.written_bytes), f"{_COMPUTED}{spare}"),
        ("disk: free", describe_bytes(plan.free_disk), f"{_SEEN}, where the runs lie"),
        ("disk: table, packed images", describe_bytes(plan.table_bytes), _SEEN),
    ]
    if plan.kept_bytes:
        rows.append(
            ("disk: run folder", describe_bytes(plan.kept_bytes), f"{_SEEN}; a run of this name is there already")
        )
    return rows


def _describe_limit(member: MemberPlan, work: Work) -> str:
    if not member.training.workers:
        return f"{_COMPUTED}; without loader processes the network waits for every batch"
    least, most = sorted((work.network, work.loading))
    return f"{_COMPUTED}; limit: {work.limit}, which wants {most / max(least, 1e-9):,.1f} times as long as the other"


def _name_phase(member: MemberPlan, phase: Phase) -> str:
    """What tells a phase from the others of the same training."""
    phases = member.rehearsal.steps
    side = f" at {phase.side_px} px" if len({one.side_px for one in phases}) > 1 else ""
    return side + (", backbone frozen" if phase.is_frozen else "")


def _count(number: int, what: str, ending: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else ending}"


def _round(value: float) -> str:
    """Two digits are all that so short a look is worth; whole numbers from 10 on."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
