"""A training session as a recipe says: its trainer, batches, validation, checkpoints and reports, put together."""

from __future__ import annotations

from collections.abc import Callable

import torch

from productrec.assembly.judges import build_merging, build_near_classes, build_validation, choose_figure
from productrec.assembly.network import describe_text_tower
from productrec.assembly.titles import build_row_titles, list_titles, prepare_tokeniser
from productrec.assembly.trainer import build_trainer
from productrec.assembly.training_data import TrainingData, build_batches, select_training_data
from productrec.data.class_keys import get_class_keys
from productrec.data.table import ImageTable
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.models.text.tokens import Tokeniser
from productrec.recipe import Recipe
from productrec.runtime import set_seed
from productrec.training.ranks.resources import Resources
from productrec.training.run.plan import Plan
from productrec.training.run.reporter import Reporter
from productrec.training.run.resume import resume_training
from productrec.training.run.run_checkpoints import RunCheckpoints
from productrec.training.run.session import Session
from productrec.training.step.fitting import explain_large_network
from productrec.training.step.memory_estimate import check_step_fits
from productrec.training.step.trainer import Trainer


def build_session(
    recipe: Recipe,
    table: ImageTable,
    resources: Resources,
    *,
    resume: bool = False,
    allow_code: bool = False,
    deadline: float | None = None,
    should_stop: Callable[[int, dict[str, float]], bool] = lambda epoch, figures: False,
) -> Session:
    """Everything that a training needs, ready for its first step or for the one that a stopped run comes to next.

    Args:
        recipe: every setting.
        table: the images.
        resources: what to compute with; all its ranks call this together.
        resume: whether to take up what the run folder holds.
        allow_code: whether a loss from outside productrec may be imported.
        deadline: of `time.monotonic`, when all is done; None for none.
        should_stop: asked after every epoch, with its figures, whether to end there.

    Raises:
        ArtifactError: what is resumed is damaged, or of another training.
        DataError: nothing to train on, or nothing that the figure that decides can be measured by.
        RecipeError: settings that do not go together on this machine.
        TrainingError: the model cannot be built, or a step cannot fit the memory.
    """
    set_seed(recipe.seed)
    data = select_training_data(recipe, table)
    batches = build_batches(recipe, table, data, resources)
    titles, tokeniser = None, None
    if recipe.model.text.is_wanted:
        listed = list_titles(table, data.rows, recipe.model.text.reads)
        tokeniser = prepare_tokeniser(recipe, listed)
        titles = build_row_titles(recipe, data, listed, tokeniser)
    trainer = build_fitting_trainer(recipe, data, len(batches), resources, allow_code, tokeniser)
    if resources.ranks.size > 1:
        torch.manual_seed(recipe.seed + resources.ranks.rank)  # weights are equal; what each drops is its own
    class_ids = data.order.list_ids()
    if resume:
        resume_training(trainer, batches, recipe.run_folder, class_ids)
    return Session(
        trainer,
        batches,
        build_plan(recipe, keep_best_by=choose_figure(table, recipe, data.order), deadline=deadline),
        checkpoints=RunCheckpoints(
            recipe.run_folder,
            class_ids=class_ids,
            class_keys=get_class_keys(table, class_ids),
            class_names=table.get_class_names(class_ids),
            recipe=recipe.dump(),
            table_fingerprint=table.fingerprint,
            text=None if tokeniser is None else describe_text_tower(trainer.recognizer, tokeniser),
        ),
        reporter=Reporter(
            recipe.run_folder,
            name=recipe.name,
            settings=recipe.dump(),
            track=recipe.train.track,
            epochs=recipe.train.epochs,
            steps_per_epoch=len(batches),
            resources=resources,
        ),
        image_ids=data.rows["image_id"].tolist(),
        near_classes=build_near_classes(table, recipe, data, resources),
        merging=build_merging(table, recipe, data.order, trainer.objective.metric, resources),
        validation=build_validation(table, recipe, data.order, resources, tokeniser),
        titles=titles,
        should_stop=should_stop,
    )


def build_plan(recipe: Recipe, *, keep_best_by: str, deadline: float | None = None) -> Plan:
    """What a recipe says is done when; ``keep_best_by`` is the figure that decides, see `choose_figure`."""
    metric = recipe.loss.metric
    return Plan(
        epochs=recipe.train.epochs,
        keep_best_by=keep_best_by,
        validate_every=recipe.train.validate_every,
        validate_raw=recipe.train.validate_raw,
        mine_every=recipe.train.mine_every,
        merge_every=metric.merge_every_epochs if isinstance(metric, SoftTriple) else 0,
        freeze_epochs=recipe.train.freeze_epochs,
        freeze_norms=recipe.train.freeze_norms,
        soup=recipe.train.soup,
        patience=recipe.train.patience,
        deadline=deadline,
        batch_multiple=_get_batch_multiple(recipe),
    )


def build_fitting_trainer(
    recipe: Recipe,
    data: TrainingData,
    steps_per_epoch: int,
    resources: Resources,
    allow_code: bool,
    tokeniser: Tokeniser | None = None,
) -> Trainer:
    """The trainer of a recipe; one whose steps are surely too large for the memory is refused.

    Raises:
        RecipeError: settings that do not go together on this machine.
        TrainingError: the model cannot be built, or a step cannot fit the memory.
    """
    try:
        trainer = build_trainer(
            recipe,
            data.class_sizes,
            steps_per_epoch,
            device=resources.device,
            dtype=resources.dtype,
            ranks=resources.ranks,
            allow_code=allow_code,
            tokeniser=tokeniser,
        )
    except RuntimeError as error:
        raise explain_large_network(error) from error
    check_step_fits(
        trainer,
        batch_size=recipe.train.batch_size,
        side_px=recipe.train.side_px,
        multiple_of=_get_batch_multiple(recipe),
        dtype=resources.dtype,
        is_frozen=recipe.train.freeze_epochs >= recipe.train.epochs,
    )
    return trainer


def _get_batch_multiple(recipe: Recipe) -> int:
    """What a batch size must be a multiple of."""
    return recipe.train.images_per_class if recipe.uses_pk_sampler else 2
