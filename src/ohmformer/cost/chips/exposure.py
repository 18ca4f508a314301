"""The largest chip that lithography exposes at once."""

LARGEST_FIELD = 26e-3 * 33e-3
"""Area of the largest exposure field of scanners [m^2]: 26 mm x 33 mm (IRDS 2022, Lithography; ASML, TWINSCAN). A chip
that is larger must be stitched from several exposures, or consist of several chips."""
