"""Networks: a timm backbone, pooling, an embedding neck and a classification head."""
