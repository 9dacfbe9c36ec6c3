"""Two processes at one run folder, and several at one ledger: nothing is mixed or lost, and the dead hold no lock."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from productrec.competitions.ledger import load_ledger
from tests.integration.conftest import TINY, write_recipe

HOLD = """
import os, sys, time
from pathlib import Path
from productrec.training.run.run_folder import claim_run_folder
with claim_run_folder(Path(sys.argv[1])):
    if os.fork() == 0:  # as a loader process, which may outlive a training that is killed
        print("held", os.getpid(), flush=True)
    time.sleep(300)
"""

APPEND = """
import sys
from pathlib import Path
from productrec.competitions.ledger import LedgerEntry, append_to_ledger
print("ready", flush=True)
sys.stdin.readline()
for number in range(5):
    entry = LedgerEntry(file=f"{sys.argv[2]}-{number}", sha256="0" * 64, competition="c", source="s", recipe_digest="d")
    append_to_ledger(Path(sys.argv[1]), entry)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_second_training_is_refused_and_a_killed_one_holds_nothing(place, drawn, productrec):
    recipe = write_recipe(place, drawn)
    assert productrec("ingest", drawn, "--out", "data/tiny").code == 0
    holder = start(HOLD, "runs/tiny")
    _, loader = holder.stdout.readline().split()
    try:
        for more in ([], ["--resume"]):
            refused = productrec("train", recipe, *TINY, *more)
            assert refused.code == 4, refused.err
            assert refused.err.splitlines()[-1].startswith("error: runs/tiny: another training runs in this folder")
        assert [path.name for path in Path("runs/tiny").iterdir()] == [".lock"]
        holder.kill()
        holder.wait()
        trained = productrec("train", recipe, *TINY)
        assert trained.code == 0, trained.err
    finally:
        os.kill(int(loader), signal.SIGKILL)
        holder.kill()
        holder.communicate()


def test_parallel_submissions_keep_every_row_of_the_ledger(place):
    writers = [start(APPEND, "ledger.csv", number) for number in range(6)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    rows = load_ledger(Path("ledger.csv"))
    assert {row.file for row in rows} == {f"{writer}-{number}" for writer in range(6) for number in range(5)}
    assert len(rows) == 30
