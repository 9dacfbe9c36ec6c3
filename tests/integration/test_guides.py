"""The tour and the guides: their commands exist, their code runs as it stands and prints what they say."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import typer

from productrec.cli.main import app
from tests.integration.conftest import TINY, check_command, write_recipe

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [*sorted((ROOT / "docs/guides").glob("*.md")), ROOT / "docs/tour.md", ROOT / "docs/library.md"]
LOSS = (ROOT / "docs/guides/write_a_loss.md").read_text()


def list_commands(page: str) -> list[list[str]]:
    """The commands of productrec in a page's blocks and among its words, also those behind `docker run`."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
    shells = [text for language, text in blocks if language in ("", "bash")]
    lines = [line for text in shells for line in text.replace("\\\n", " ").splitlines()]
    outside = re.sub(r"^ *```\w*\n.*?^ *```$", "", page, flags=re.DOTALL | re.MULTILINE).split("\n\n")
    lines += [" ".join(inline.split()) for paragraph in outside for inline in re.findall(r"`([^`]+)`", paragraph)]
    found = [re.search(r"(?:^|[\s/!])productrec(?:_in_docker)? +([a-z].*)", line) for line in lines]
    return [["productrec", *shlex.split(one[1], comments=True)] for one in found if one]


def find_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", LOSS, re.DOTALL)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_commands_of_a_guide_exist(guide):
    commands = list_commands(guide.read_text())
    assert commands
    for command in commands:
        if len(command) == 2:  # named alone, without what it takes
            assert command[1] in typer.main.get_command(app).commands
        else:
            check_command(command)


def test_a_command_that_does_not_exist_is_found_wherever_it_stands():
    for page in (
        "Say `productrec predict runs/mine --vews flip`.",
        "```\nproductrec trian x.yaml\n```\n",
        "```bash\nPYTHONPATH=. productrec train x.yaml \\\n  --allow-kode  # so\n```\n",
        "```\ndocker run --rm -v a:b \\\n  productrec rnu x.yaml\n```\n",
    ):
        (command,) = list_commands(page)
        with pytest.raises(Exception, match=r"(?i)no such"):
            check_command(command)


def test_the_losses_of_the_guide_train(place, drawn, productrec, monkeypatch):
    three_lines, with_settings, _ = find_blocks("python")
    assert len([line for line in three_lines.splitlines() if not line.startswith("#")]) == 3
    (place / "my_losses.py").write_text(three_lines + "\n\n" + with_settings)
    monkeypatch.syspath_prepend(str(place))
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    refused = productrec("train", recipe, *TINY, "loss.metric=my_losses:Squared")
    assert refused.err.strip() in LOSS
    for name, metric in (("a", "my_losses:Squared"), ("b", "{name: my_losses:SquaredTo, push_to: 0.2}")):
        own = [f"name={name}", "data.table=data/tiny", "train.epochs=1", f"loss.metric={metric}"]
        trained = productrec("train", recipe, *TINY, *own, "--allow-code")
        assert trained.code == 0, trained.err
        assert re.search(r"train_metric 0\.\d+|train_metric [1-9]", trained.err), trained.err


def test_the_weights_of_the_guide_are_those_that_it_shows():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec("\n\n".join(find_blocks("python")), {"__name__": "guide"})
    assert f"```text\n{said.getvalue()}```" in LOSS
