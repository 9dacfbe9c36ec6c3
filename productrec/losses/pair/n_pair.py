"""N-pair loss."""

from __future__ import annotations

from productrec.losses.pair.nt_xent import NTXent
from productrec.settings.fields import PositiveFloat, setting


class NPair(NTXent):
    r"""N-pair loss (Sohn, NeurIPS 2016): NT-Xent at temperature 1, over all positives of an anchor.

    .. math:: \log\Big(1 + \sum_n e^{n - p}\Big)
    """

    formula = "mean over positives of log(1 + sum_n e^((n - p) / t))"
    source = "Sohn, NeurIPS 2016"

    temperature: PositiveFloat = setting(1.0, "similarities are divided by it")
