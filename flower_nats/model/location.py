"""The location of a SuperNode (flwr 1.42 `supercore/utils.py`, `validate_node_location`)."""

import math


def check_location(location: str) -> None:
    """Check that a location is `latitude,longitude` in degrees; raises ValueError with the reason.

    The reasons are Flower's, which the CLI prints.
    """
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
