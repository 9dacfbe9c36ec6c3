"""The command ``plan``: what a recipe will take on this machine, before it is trained."""

from productrec.cli.next_steps import tell_next
from productrec.cli.options import AllowCode, Overrides, RecipePath
from productrec.errors import Interrupted


def plan(recipe: RecipePath, overrides: Overrides = None, allow_code: AllowCode = False) -> None:
    """Say what training and prediction will take here: steps, hours, memory and disk, from a few timed steps.

    It takes about a minute a model, needs the recipe's image table, and writes nothing.
    """
    try:
        from productrec.pipeline.plan_table import print_plan
        from productrec.pipeline.select import check_overrides
        from productrec.recipe import load_recipe
        from productrec.stages.plan import run_plan

        loaded = load_recipe(recipe, overrides or [])
        check_overrides(overrides or [], command="plan", run_folders=False)
        print_plan(run_plan(loaded, allow_code=allow_code))
        code = ["--allow-code"] if allow_code else []
        tell_next("plan", command=["productrec", "train", recipe, *(overrides or []), *code])
    except KeyboardInterrupt:
        raise Interrupted("plan: stopped; nothing was written.") from None


COMMANDS = (plan,)
