"""Match: each test image gets the ids of the test images that are taken for the same product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import is_fresh
from productrec.assembly.matching import (
    Embedded,
    build_labelled_pool,
    list_expansions,
    load_embedded,
    search_others,
)
from productrec.assembly.voters import get_titles
from productrec.competitions.contract import load_contract
from productrec.console import print_table, say, warn
from productrec.data.table import ImageTable, load_table
from productrec.errors import RecipeError
from productrec.metrics.matches import MatchLists, score_matches
from productrec.recipe import Recipe
from productrec.recognition.choosing_matches import (
    PLAIN,
    STEPS,
    ChosenMatching,
    LabelledPool,
    choose_matching,
    compute_group_interval,
)
from productrec.recognition.matching import MatchRule, build_rule, find_near, list_matches
from productrec.recognition.saved_matches import KIND, SavedMatches, load_matches, save_matches
from productrec.recognition.titled_matching import find_titled
from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.title_neighbours import has_title

TITLES = {"at_least_two": "at least two", "both_ways": "both ways"}


@dataclass(frozen=True)
class Matched:
    """The matches of the test images, None where there are none, and what was fitted, as plain values."""

    matches: SavedMatches | None
    fitted: dict[str, Any]


def run_match(runs: Mapping[Path, Recipe], folder: Path, *, weights: Sequence[float]) -> Matched:
    """Match the test images of embedded runs, ``FOLDER/matches/VIEWS/test``; what is there and unchanged stays.

    Args:
        runs: run folders with their settings, embedded as `list_match_requests` says; of one image table.
        folder: the run's, or the ensemble's.
        weights: of each run in the mean similarity.

    Raises:
        ArtifactError: an embedding set is missing or of other images.
        DataError: no threshold is given, and validation images have no labels to fit it by.
        RecipeError: a re-ranking that cannot be used here.
    """
    recipe = next(iter(runs.values()))
    table, contract = load_table(recipe.table, root=recipe.data.images), load_contract(recipe.competition)
    most, views, expansions = contract.most_matches, recipe.predict.tta, list_expansions(recipe)
    has_test = len(table.select(["test"])) > 0
    splits = [split for split in dict.fromkeys(("val", *recipe.predict.gallery_splits)) if len(table.select([split]))]
    seen = {
        split: load_embedded(list(runs), table, [split], views, weights)
        for split in (*splits, *(["test"] if has_test else []))
    }
    inputs = {name: digest for embedded in seen.values() for name, digest in embedded.inputs.items()}
    settings = {"match": recipe.match.model_dump(mode="json"), "reranking": list(expansions), "most": most}
    settings |= {"views": views, "seed": recipe.seed, "weights": list(weights)}
    target = folder / "matches" / views / "test"
    if has_test and is_fresh(target, kind=KIND, inputs=inputs, settings=settings):
        saved = load_matches(target)
        return Matched(saved, saved.fitted)
    asked = seen.get("test" if has_test else "val")
    pool_images = recipe.match.pool_images or (0 if asked is None else len(asked.ids))
    if recipe.match.threshold is None:
        titles = _get_titles(table, seen) if recipe.match.titles == "auto" else None
        fitted = _fit(table, recipe, seen, expansions, titles, pool_images=pool_images, most=most)
    else:
        fitted = _take_given(recipe, expansions, most)
    if not has_test:
        return Matched(None, fitted)
    rule, test = build_rule(fitted["rule"]), seen["test"]
    method = expansions.get(fitted["embeddings"])
    embeddings = test.embeddings if method is None else method.prepare(test.embeddings, None).gallery
    near = search_others(embeddings, most)
    titled = None if rule.titles is None else find_titled(embeddings, get_titles(table, test.ids), *near)
    lists = list_matches(find_near(near, titled, rule), rule)
    fitted["test"] = _score_test(table, test.ids, lists)
    ids = test.ids + _find_unread(table, test.ids)
    alone = np.arange(len(test.ids), len(ids))
    starts = np.concatenate([lists.starts, lists.starts[-1] + 1 + np.arange(len(alone))])
    lists = MatchLists(starts, np.concatenate([lists.rows, alone]))
    save_matches(target, ids, lists, fitted=fitted, inputs=inputs, settings=settings)
    return Matched(load_matches(target), fitted)


def report(matched: Matched) -> None:
    """Print the figures, what was tried, and what the lists look like."""
    fitted = matched.fitted
    if fitted.get("f1") is not None:
        rows = [
            (
                TITLES.get(step["name"], step["name"]),
                f"{100 * step['f1']:.2f}",
                f"{100 * step['chance']:.0f} %",
                "kept" if step["is_kept"] else "left out",
            )
            for step in fitted["steps"]
        ]
        if rows:
            print_table("matches: what was tried", ("", "F1 %", "better in", ""), rows)
        low, high = fitted["interval"]
        say(
            f"matches: F1 {100 * fitted['f1']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, over classes) "
            f"of {fitted['images']:,} validation images of {fitted['classes']:,} classes, each by what was fitted on "
            f"other classes, as among {fitted['pool_images']:,} images"
        )
    rule = fitted["rule"]
    has_titles = rule.get("titles") is not None
    what = "probability by image and title of" if has_titles else "similarity of"
    said = [f"{what} at least {rule['threshold']:.4f}"]
    said += [TITLES["at_least_two"]] if rule["at_least"] > 1 else []
    said += [TITLES["both_ways"]] if rule["both_ways"] else []
    said += [fitted["embeddings"]] if fitted["embeddings"] != PLAIN else []
    say(f"images match by: {', '.join(said)}")
    if matched.matches is None:
        say("the image table has no test images to match")
        return
    counts = matched.matches.lists.counts
    if (known := fitted.get("test")) is not None:
        low, high = known["interval"]
        say(
            f"test, labels of the source: F1 {100 * known['f1']:.2f} % (95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f}) of {known['images']:,} images"
        )
    say(
        f"matches of {len(counts):,} test images: {matched.matches.folder}; {counts.mean():.2f} ids a list, "
        f"{int((counts == 1).sum()):,} lists hold the image alone"
    )


def _fit(
    table: ImageTable,
    recipe: Recipe,
    seen: Mapping[str, Embedded],
    expansions: Mapping[str, Expansion],
    titles: Mapping[str, str | None] | None,
    *,
    pool_images: int,
    most: int,
) -> dict[str, Any]:
    """What `choose_matching` comes to, as plain values."""
    labels = _get_labels(table, ("train", "val"))
    validation = seen.get("val") or Embedded([], np.empty((0, 1), np.float32), {})
    others = [embedded for split, embedded in seen.items() if split not in ("val", "test")]
    pool = build_labelled_pool(
        validation,
        others[0] if others else None,
        labels,
        expansions,
        pool_images=pool_images,
        most=most,
        seed=recipe.seed,
        titles=titles,
    )
    judged = set(pool.labels[pool.is_judged].tolist())
    trained = set(table.select(["train"])["label"].dropna().astype(int).tolist())
    if judged & trained:
        warn(
            f"{len(judged & trained):,} of {len(judged):,} classes of validation images were trained on, so that they "
            "look easier to match than new ones: threshold and F1 flatter. data.hold_out=classes holds whole ones out."
        )
    if pool.weight > 3:
        warn(
            f"the threshold is for {pool_images:,} images, but only {len(pool.labels):,} are labelled: a mistake among "
            f"them counts {pool.weight:.1f} times, which is a rough estimate."
        )
    chosen = choose_matching(pool, steps=recipe.match.steps, most=most, seed=recipe.seed)
    return _describe(chosen, pool, pool_images)


def _describe(chosen: ChosenMatching, pool: LabelledPool, pool_images: int) -> dict[str, Any]:
    values = asdict(chosen) | {"pool_images": pool_images, "labelled_images": len(pool.labels), "weight": pool.weight}
    return values | {"steps": [asdict(step) for step in chosen.steps], "interval": list(chosen.interval)}


def _take_given(recipe: Recipe, expansions: Mapping[str, Expansion], most: int) -> dict[str, Any]:
    """The rule as the recipe has it, where nothing is fitted."""
    if len(expansions) > 1:
        raise RecipeError(
            f"predict.reranking: must be one method at most beside match.threshold, where nothing is tried; got "
            f"{', '.join(expansions)}. Leave out all but one."
        )
    changes = {name: value for step in recipe.match.steps for name, value in STEPS[step].items()}
    rule = MatchRule(recipe.match.threshold or 0.0, most=most, **changes)
    return {"rule": asdict(rule), "embeddings": next(iter(expansions), PLAIN), "steps": [], "f1": None}


def _get_labels(table: ImageTable, splits: Sequence[str]) -> dict[str, int]:
    rows = table.select(splits)
    rows = rows[rows["label"].notna()]
    return dict(zip(rows["image_id"].tolist(), rows["label"].astype(int).tolist(), strict=True))


def _get_titles(table: ImageTable, seen: Mapping[str, Embedded]) -> dict[str, str | None] | None:
    """Titles of all images by id; None unless validation images and test images, where there are any, have some."""
    named = {split: dict(zip(one.ids, get_titles(table, one.ids), strict=True)) for split, one in seen.items()}
    needed = [named[split] for split in ("val", "test") if split in named]
    if not all(any(map(has_title, titles.values())) for titles in needed):
        return None
    return {image_id: title for titles in named.values() for image_id, title in titles.items()}


def _score_test(table: ImageTable, ids: Sequence[str], lists: MatchLists) -> dict[str, Any] | None:
    """F1 of test images whose labels the table holds; None unless it holds all."""
    labels = _get_labels(table, ["test"])
    if not set(ids) <= set(labels):
        return None
    known = np.array([labels[name] for name in ids], dtype=np.int64)
    f1 = score_matches(lists, known)
    return {"f1": float(f1.mean()), "interval": list(compute_group_interval(f1, known)), "images": len(ids)}


def _find_unread(table: ImageTable, ids: Sequence[str]) -> list[str]:
    """Test images that cannot be read, which match themselves alone."""
    known = set(ids)
    unread = [name for name in table.select(["test"], usable=False)["image_id"].tolist() if name not in known]
    if unread:
        warn(f"{len(unread)} test images cannot be read (first: {unread[0]}); they match themselves alone.")
    return unread
