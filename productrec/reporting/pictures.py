"""Pictures of a table's images by their ids, as far as they can be read, as small ones of a page or in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from productrec.data.images import Images
from productrec.errors import DataError
from productrec.reporting.thumbnails import Thumbnails


class Pictures:
    """Pictures of the images of a page, each decoded when it is first asked for."""

    def __init__(self, thumbnails: Thumbnails, images: Images | None, row_of: Mapping[str, int]) -> None:
        """Take the pictures of some images.

        Args:
            thumbnails: of the page.
            images: by row; None where they are not at hand, so that none is shown.
            row_of: row of each image id; ids that it lacks are not shown.
        """
        self.thumbnails = thumbnails
        self._images, self._row_of = images, row_of

    @property
    def are_at_hand(self) -> bool:
        """Whether there are images at all."""
        return self._images is not None

    def show(self, image_id: str) -> int | None:
        """The number of an image's picture in the page; None where it is not shown."""
        if self._images is None or image_id not in self._row_of:
            return None
        return self.thumbnails.add(f"image {image_id}", lambda: self.decode(image_id))

    def show_some(self, image_ids: Sequence[str]) -> list[tuple[str, int | None]]:
        """Ids with the numbers of their pictures."""
        return [(image_id, self.show(image_id)) for image_id in image_ids]

    def show_drawn(self, name: str, pixels: np.ndarray) -> int | None:
        """The number of a picture that was drawn, (H, W, 3) uint8 RGB; ``name`` tells it from others."""
        return self.thumbnails.add(f"drawn {name}", lambda: pixels)

    def decode(self, image_id: str) -> np.ndarray:
        """The pixels (H, W, 3) uint8 RGB of an image.

        Raises:
            DataError: it is not at hand or cannot be read.
        """
        if self._images is None or image_id not in self._row_of:
            raise DataError(f"{image_id}: its image is not at hand. Name the folder of the images with data.images.")
        return self._images.decode(self._row_of[image_id])
