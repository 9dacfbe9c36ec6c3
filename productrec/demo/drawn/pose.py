"""Puts a package into a picture: turned, tilted, seen in perspective and shaded by one light. Used by photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from productrec.demo.drawn.marks import Pixels
from productrec.demo.drawn.package import Package

_AMBIENT = 0.55  # light from all sides; the rest comes from the lamp


@dataclass(frozen=True)
class Pose:
    """How a package stands before the camera.

    Angles in radians; ``pitch`` above 0 looks down on it. ``distance`` from the camera is in package heights,
    ``centre`` in pixels; ``fill`` is the share of ``room`` (width, height in pixels) that its outline takes.
    """

    yaw: float
    pitch: float
    roll: float
    distance: float
    centre: tuple[float, float]
    fill: float
    room: tuple[float, float]


def draw_posed(package: Package, pose: Pose, light: Pixels, width: int, height: int) -> tuple[Pixels, Pixels]:
    """Render ``package``.

    Args:
        package: what to draw.
        pose: how it stands.
        light: unit vector (3,) towards the lamp: right, down, towards the viewer.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        Colour, uint8 (height, width, 3), and opacity, float32 (height, width) in [0, 1].
    """
    if package.build == "box":
        return _draw_box(package, pose, light, width, height)
    if package.build == "turned":
        view, rise = _turn(package, pose, light)
        corners = _span(package, rise)
        turned = replace(pose, yaw=0.0, pitch=0.35 * pose.pitch)  # both are mostly in the view already
    else:
        view = np.dstack(
            [_shade(package.surface[..., :3], package.normals, light, package.gloss), package.surface[..., 3]]
        )
        corners = _span(package, 0)
        turned = pose
    spots = _project(corners, turned)
    layer = cv2.warpPerspective(view, _map_face(view, spots), (width, height), flags=cv2.INTER_LINEAR)
    return layer[..., :3], layer[..., 3].astype(np.float32) * np.float32(1 / 255)


def _span(package: Package, rise: int) -> Pixels:
    """Corners (4, 3) of the front's plane, clockwise from top left, height 1; ``rise`` rows added above and below."""
    width, height = package.size
    x, y = width / height / 2, 0.5 + rise / height
    return np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)])


def _rotate(pose: Pose) -> Pixels:
    cosines, sines = np.cos((pose.yaw, pose.pitch, pose.roll)), np.sin((pose.yaw, pose.pitch, pose.roll))
    yaw = np.array([(cosines[0], 0, sines[0]), (0, 1, 0), (-sines[0], 0, cosines[0])])
    pitch = np.array([(1, 0, 0), (0, cosines[1], sines[1]), (0, -sines[1], cosines[1])])
    roll = np.array([(cosines[2], -sines[2], 0), (sines[2], cosines[2], 0), (0, 0, 1)])
    return np.asarray(roll @ pitch @ yaw)


def _project(points: Pixels, pose: Pose) -> Pixels:
    """Points (N, 3) in package heights to pixels (N, 2), so that their outline fills the pose's room."""
    turned = points @ _rotate(pose).T
    longest = max(1.0, 2 * float(np.abs(points).max()))
    flat = turned[:, :2] * pose.distance * longest / (pose.distance * longest - turned[:, 2:])
    low, high = flat.min(0), flat.max(0)
    scale = pose.fill * float(np.min(np.asarray(pose.room) / (high - low)))
    return np.asarray((flat - (low + high) / 2) * scale + pose.centre)


def _map_face(face: Pixels, spots: Pixels) -> Pixels:
    height, width = face.shape[:2]
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - np.float32(0.5)
    return np.asarray(cv2.getPerspectiveTransform(source, spots.astype(np.float32)))


def _shade(colour: Pixels, normals: Pixels, light: Pixels, gloss: float) -> Pixels:
    """Lamp and sky on ``colour`` (H, W, 3): darker where it turns away, a highlight where it mirrors the lamp."""
    facing = cv2.transform(normals, light[None].astype(np.float32))
    brightness = np.maximum(facing, 0) * np.float32(1 - _AMBIENT) + np.float32(_AMBIENT)
    brightness /= np.float32(_AMBIENT + (1 - _AMBIENT) * light[2])
    half = light + np.array((0, 0, 1))
    mirrored = cv2.transform(normals, (half / np.linalg.norm(half))[None].astype(np.float32))
    shine = cv2.pow(np.maximum(mirrored, 0), 40.0) * np.float32(190 * gloss)
    lit = cv2.multiply(colour, cv2.merge([brightness] * 3), dtype=cv2.CV_32F)
    return np.asarray(cv2.convertScaleAbs(np.minimum(lit + shine[..., None], 255)))


def _turn(package: Package, pose: Pose, light: Pixels) -> tuple[Pixels, int]:
    """The frontal view of a turned body after a turn by the pose's yaw, seen from a little above; and rows added."""
    assert package.radii is not None
    width, height = package.size
    bulge = float(np.sin(max(0.0, pose.pitch)))
    rise = int(np.ceil(bulge * width / 2)) + 1
    rows = np.clip(np.arange(-rise, height + rise), 0, height - 1)
    radii = package.radii[rows][:, None]
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2))[None]
    across = np.clip(x / radii, -1, 1)
    depth = np.sqrt(1 - across * across)
    around = package.surface.shape[1]
    map_x = (np.arcsin(across) + np.float32(pose.yaw + np.pi)) * np.float32(around / (2 * np.pi))
    y = np.arange(-rise, height + rise, dtype=np.float32)[:, None]
    map_y = y - np.float32(bulge) * radii * depth
    colour = cv2.remap(
        package.surface[..., :3], map_x, np.clip(map_y, 0, height - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    colour = _shade(colour, package.normals[rows], light, package.gloss)
    lid = map_y < 0
    colour[lid] = np.minimum(np.asarray(package.lid) * (0.75 - 0.4 * light[1]), 255).astype(np.uint8)
    back = y + np.float32(bulge) * radii * depth
    edge = np.minimum(np.minimum(radii - np.abs(x), back), height - 1 - map_y)
    return np.dstack([colour, (np.clip(edge + 0.5, 0, 1) * 255).astype(np.uint8)]), rise


def _draw_box(package: Package, pose: Pose, light: Pixels, width: int, height: int) -> tuple[Pixels, Pixels]:
    assert package.side is not None
    front_width, front_height = package.size
    x, y = front_width / front_height / 2, 0.5
    z = x * package.depth
    corners = np.array([(i, j, k) for k in (z, -z) for i, j in ((-x, -y), (x, -y), (x, y), (-x, y))])
    spots = _project(corners, pose)
    turned = _rotate(pose)
    layer = np.empty((height, width, 3), np.uint8)
    opacity = np.zeros((height, width), np.uint8)
    _fill(opacity, cv2.convexHull(spots.astype(np.float32))[:, 0])
    lid = np.full((8, 8, 3), package.lid, np.uint8)
    faces = [
        (lid, (4, 5, 1, 0), turned @ (0, -1, 0)),
        (package.side, (1, 5, 6, 2), turned @ (1, 0, 0)),
        (package.side, (4, 0, 3, 7), turned @ (-1, 0, 0)),
        (package.surface[..., :3], (0, 1, 2, 3), turned @ (0, 0, 1)),
    ]
    first = True
    for face, order, normal in faces:
        quad = spots[list(order)]
        edge, other = quad[1] - quad[0], quad[3] - quad[0]
        if edge[0] * other[1] - edge[1] * other[0] <= 1:  # turned away
            continue
        brightness = (_AMBIENT + (1 - _AMBIENT) * max(0.0, float(normal @ light))) / (
            _AMBIENT + (1 - _AMBIENT) * light[2]
        )
        lit = cv2.convertScaleAbs(face, alpha=brightness)
        drawn = cv2.warpPerspective(
            lit, _map_face(face, quad), (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        if first:
            layer, first = np.asarray(drawn), False
            continue
        inside = np.zeros((height, width), np.uint8)
        _fill(inside, quad)
        share = inside.astype(np.float32) * np.float32(1 / 255)
        layer = np.asarray(cv2.blendLinear(drawn, layer, share, 1 - share))
    return layer, opacity.astype(np.float32) * np.float32(1 / 255)


def _fill(mask: Pixels, polygon: Pixels) -> None:
    cv2.fillConvexPoly(mask, np.round(polygon * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
