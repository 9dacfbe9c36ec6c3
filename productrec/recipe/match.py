"""Settings of matching, where a competition asks which images are of one product."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from productrec.settings.fields import Positive, Settings, setting


class MatchSettings(Settings):
    """From when on two images match; only contracts whose answers are matches ask for it."""

    decides = "predictions"
    commands = ("train", "predict")

    steps: tuple[Literal["at_least_two", "both_ways"], ...] = setting(
        ("at_least_two", "both_ways"),
        "what is tried, each kept where it surely gains: at_least_two, every image lists its nearest other, however "
        "far away; both_ways, it lists those that list it",
    )
    titles: Literal["auto", "none"] = setting(
        "auto",
        "whether titles are matched too: auto, where validation and test images have titles and it surely gains; none",
    )
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = setting(
        None, "similarity from which on images match; none: fitted for the mean F1 on validation images"
    )
    pool_images: Positive | None = setting(
        None, "images that the threshold is fitted for, among which matches are looked for; none: the test images"
    )
