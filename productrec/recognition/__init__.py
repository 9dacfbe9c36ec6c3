"""Recognition: neighbours vote, the vote is fused with the classification head."""
