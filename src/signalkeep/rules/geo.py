"""Distances on the globe, as exact as rules need them: a sphere, at most 0.6 % off. Pure."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt
from typing import Final

EARTH_RADIUS_M: Final = 6_371_008.8  # mean radius, IUGG

RADIAN: Final = radians(1)
DEGREE_M: Final = EARTH_RADIUS_M * RADIAN
FLAT_DEG: Final = 0.05


def distance_m(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great-circle distance of two points in degrees, metres."""
    north, east = latitude_b - latitude_a, longitude_b - longitude_a
    if -FLAT_DEG < north < FLAT_DEG and -FLAT_DEG < east < FLAT_DEG and -80 < latitude_a < 80:
        # So near to each other the globe is flat.
        return DEGREE_M * sqrt(north * north + (east * cos(RADIAN * (latitude_a + north / 2))) ** 2)
    phi_a, phi_b = radians(latitude_a), radians(latitude_b)
    half_phi, half_lambda = (phi_b - phi_a) / 2, radians(longitude_b - longitude_a) / 2
    chord = sin(half_phi) ** 2 + cos(phi_a) * cos(phi_b) * sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_M * asin(min(1.0, sqrt(chord)))
