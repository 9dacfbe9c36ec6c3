"""The pair-weighting engine: value and gradient of any loss over pairs, in linear memory."""
