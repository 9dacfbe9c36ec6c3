"""Structure of class probabilities through the commands: what is kept is submitted, what is left out is said."""

import csv
import json

import numpy as np
import pytest

from productrec.artifacts import load_manifest
from productrec.data.table import load_table, save_table
from productrec.recognition.probabilities import load_probabilities
from productrec.recognition.structure import fitting
from tests.integration.conftest import TINY

RUN, PLAIN, STRUCTURED = "runs/tiny", "runs/tiny/predictions/plain", "runs/tiny/predictions/plain.structure"


def number_listings(place):
    """Give each three images of a class a listing; the table's own source has none."""
    folder = place / "data/tiny"
    table, manifest = load_table(folder), load_manifest(folder)
    images = table.images.copy()
    truth = {row["id"]: row["class"] for row in csv.DictReader((place.parent / "truth.csv").read_text().splitlines())}
    labels = images["label"].astype("string").fillna(images["image_id"].map(truth).astype("string"))
    number = images.groupby([images["split"], labels]).cumcount() // 3
    images["group"] = (images["split"] + " " + labels + " " + number.astype("string")).astype("str")
    save_table(
        folder,
        images,
        table.classes,
        root=table.root,
        sample=table.sample,
        inputs=manifest.inputs,
        settings=manifest.settings,
        numbered=table.numbered,
        packed=table.packed,
    )


@pytest.fixture
def grouped(finished, drawn):
    """A finished run whose table knows listings of three pictures, also of test images."""
    (finished.parent / "truth.csv").write_bytes((drawn / "hidden/test_labels.csv").read_bytes())
    number_listings(finished)
    return finished


@pytest.fixture
def kept(monkeypatch):
    """Every step that can be tried is kept, whatever it gains."""
    monkeypatch.setattr(fitting, "KEPT_FROM", 0.0)


def read_ledger(place):
    return list(csv.DictReader((place / "submissions/ledger.csv").read_text().splitlines()))


def predict(productrec, *settings):
    done = productrec("predict", RUN, *settings)
    assert done.code == 0, done.err
    return done


@pytest.mark.usefixtures("kept")
def test_listings_that_are_kept_are_submitted_and_forgotten_again(grouped, productrec):
    done = predict(productrec, "predict.structure=[groups]")
    assert "groups kept at" in done.err and "plain.structure" in done.err
    before, after = load_probabilities(grouped / PLAIN / "test"), load_probabilities(grouped / STRUCTURED / "test")
    groups = load_table(grouped / "data/tiny").images.set_index("image_id").loc[after.ids, "group"].to_numpy()
    spread = [
        np.ptp(values[groups == group], axis=0).max()
        for group in set(groups)
        for values in (before.values, after.values)
    ]
    assert sum(spread[1::2]) < sum(spread[::2]) / 2
    told = json.loads((grouped / STRUCTURED / "structure.json").read_text())
    gained = after.made["validation"]["metric_value"] - before.made["validation"]["metric_value"]
    assert gained == pytest.approx(told["with"] - told["without"])
    assert productrec("submit", RUN).code == 0
    row = read_ledger(grouped)[-1]
    assert row["source"].endswith("plain.structure/test")
    assert float(row["validation_value"]) == pytest.approx(after.made["validation"]["metric_value"], abs=1e-4)
    # fresh again, and still the newest
    (grouped / PLAIN / "test/manifest.json").touch()
    predict(productrec, "predict.structure=[groups]")
    assert "plain.structure/test" in productrec("submit", RUN).err
    predict(productrec)
    assert not (grouped / STRUCTURED).exists()
    assert "plain.structure" not in productrec("submit", RUN).err


def test_what_does_not_gain_leaves_the_predictions_alone_and_is_said(finished, productrec):
    done = predict(productrec, "predict.structure=[groups,categories]", "predict.prior=uniform")
    assert "groups left out, since no two" in done.err
    assert (finished / STRUCTURED / "structure.json").exists()
    kept = {
        step["name"]
        for step in json.loads((finished / STRUCTURED / "structure.json").read_text())["steps"]
        if step["is_kept"]
    }
    assert (finished / STRUCTURED / "test").exists() == bool(kept)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("prior", ["uniform", "estimated", "shares.csv"])
def test_a_prior_moves_what_is_said_on_average(finished, productrec, prior):
    before = load_probabilities(finished / PLAIN / "test")
    rows = [f"{name},{9 if place == 0 else 1}" for place, name in enumerate(before.names)]
    (finished / "shares.csv").write_text("\n".join(["class,share", *rows]) + "\n")
    predict(productrec, f"predict.prior={prior}")
    after = load_probabilities(finished / STRUCTURED / "test")
    np.testing.assert_allclose(after.values.sum(axis=1), 1, atol=1e-5)
    assert not np.array_equal(after.values, before.values)
    if prior == "shares.csv":
        assert after.values[:, 0].mean() > before.values[:, 0].mean()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class,share\n", "each once, by key or name"),
        ("class,portion\na,1\n", "columns must be class and share"),
        (None, "cannot be read"),
    ],
)
def test_shares_that_do_not_fit_are_refused(finished, productrec, text, reason):
    if text is not None:
        (finished / "shares.csv").write_text(text)
    done = productrec("predict", RUN, "predict.prior=shares.csv")
    assert done.code != 0 and reason in done.err


@pytest.mark.parametrize(
    "setting", ["predict.prior=even", "predict.structure=[groups,groups]", "predict.structure=[trees]"]
)
def test_settings_that_are_none_are_refused(finished, productrec, setting):
    assert productrec("predict", RUN, setting).code != 0


@pytest.mark.usefixtures("kept")
def test_an_ensemble_is_adjusted_as_a_whole_and_views_keep_their_name(finished, productrec):
    assert productrec("run", "tiny.yaml", *TINY, "name=other", "seed=1").code == 0
    done = productrec("predict", RUN, "runs/other", "predict.structure=[categories]", "--out", "runs/both")
    assert done.code == 0, done.err
    assert not (finished / STRUCTURED).exists()
    after = load_probabilities(finished / "runs/both/predictions/plain.structure/test")
    assert after.made["ensemble"] and after.made["structure"]["steps"][0]["name"] == "categories"
    assert productrec("submit", "runs/both").code == 0
    assert (finished / "submissions/both.csv").exists()
