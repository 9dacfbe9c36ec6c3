"""The README of a bundle: what is in it, and the few lines that run it."""

from __future__ import annotations

from collections.abc import Sequence

_README = """# {name}: an answer that runs without a network

Made by productrec {version} from the run `{name}`: {title}.

| what | where |
|---|---|
| network, index, classifier, recipe | {parts} |
| what the CSV must hold | `contract.yaml` |
| wheels | {wheels} |
| digest and size of each file, versions, limits | `bundle.json` |

## A folder of images becomes a submission

```
python run.py --images TEST_IMAGES --sample sample_submission.csv --out submission.csv
```

`run.py` compares every file with `bundle.json`, installs from `wheels` what is not here (pip, `--no-index`), and calls

```
productrec predict . --images TEST_IMAGES --sample sample_submission.csv --out submission.csv
```

The CSV has the sample's ids in its order. An id is a file's path below the folder or its name, with its ending or
without. An image that cannot be read gets the share of each class in the gallery; an id without a file is an error, or
gets the same with `--fill-missing`.

## In a notebook of Kaggle

Upload this folder as a data set, add it to the notebook, and run

```
!python /kaggle/input/DATA_SET/run.py --images /kaggle/input/COMPETITION/test_images \\
    --sample /kaggle/input/COMPETITION/sample_submission.csv --out submission.csv
```

## On a server

```
python -m venv env
env/bin/pip install {install}
env/bin/productrec query {target} photo.jpg
env/bin/productrec serve {target}
```

{note}

## What it takes

{limits}
"""


def write_readme(
    *,
    name: str,
    version: str,
    title: str,
    parts: Sequence[str],
    wheels: str,
    install: str,
    note: str,
    target: str,
    limits: Sequence[str],
) -> str:
    """The README as Markdown; all arguments are words that stand in it."""
    return _README.format(
        name=name,
        version=version,
        title=title,
        parts=", ".join(f"`{part}`" for part in parts),
        wheels=wheels,
        install=install,
        note=note,
        target=target,
        limits="\n".join(f"- {limit}" for limit in limits),
    )
