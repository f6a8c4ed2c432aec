"""The location of a SuperNode (flwr 1.42 `supercore/utils.py`, `validate_node_location`)."""

import math

_LONGEST = 100
"""Characters of a location: `float` accepts any number of zeros."""


def check_location(location: str) -> None:
    """Check that a location is `latitude,longitude` in degrees; raises ValueError with the reason.

    The CLI prints the reasons. All but that of the length are Flower's.
    """
    if len(location) > _LONGEST:
        raise ValueError(f"Location must have at most {_LONGEST} characters.")
    try:
        latitude, longitude = map(float, location.split(","))
    except ValueError as exc:
        raise ValueError(
            'Location must contain two comma-separated numbers: "<latitude>,<longitude>".'
        ) from exc
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise ValueError("Latitude and longitude must be finite numbers.")
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise ValueError(
            "Latitude must be between -90 and 90 and longitude must be between -180 and 180."
        )
