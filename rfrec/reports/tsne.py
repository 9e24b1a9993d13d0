# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""t-SNE of two sets of vectors: both in, their places in one plane out."""

import numpy as np
from jaxtyping import Float


def embed_together(
    points: Float[np.ndarray, "N D"],
    others: Float[np.ndarray, "K D"],
    *,
    perplexity: float,
    seed: int,
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "K 2"]]:
    """Lays two sets of points out in one plane.

    t-SNE gives no map for new points, so both have to be embedded at once.

    Args:
      points: residuals that enter a level, or targets.
      others: the code vectors of that level, or what was generated.
      perplexity: about how many neighbours a point has; lowered for few points.
      seed: of the layout.

    Returns:
      The places of both.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    stacked = np.concatenate([points, others]).astype(np.float32)
    tsne = TSNE(
        perplexity=min(perplexity, (len(stacked) - 1) / 3),
        # A random start would show as clusters what only started together.
        init="pca" if stacked.shape[1] > 1 else "random",
        random_state=seed,
    )
    # On busy cores its threads wait for each other: one is 3 to 7 times faster there.
    with threadpool_limits(1):
        places = tsne.fit_transform(stacked)
    return places[: len(points)], places[len(points) :]
