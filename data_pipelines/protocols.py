"""One EvaluationProtocol per benchmark."""

from contextjax.types import EvaluationProtocol

# CIRR: all pictures of the split, references included, without the query's own; the subset is the rest of its group.
CIRR = EvaluationProtocol(
    name="cirr",
    recall_at=(1, 5, 10, 50),
    subset_recall_at=(1, 2, 3),
    excludes_reference=True,
    average=("R@5", "Rs@1"),
)

# ImageCoDe's leaderboard: a set of any other size has lost pictures, and the ranks of the rest are not its indices.
IMAGECODE_CANDIDATES = 10
