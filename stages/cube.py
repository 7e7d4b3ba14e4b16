"""A 3D LUT as the file that other programs read."""

from pathlib import Path

import numpy as np


def write_cube(lut: np.ndarray, path: Path) -> None:
    """The LUT as a .cube file (Adobe Cube LUT Specification 1.0): red varies fastest."""
    lines = "\n".join("{:.6f} {:.6f} {:.6f}".format(*entry) for entry in lut.reshape(-1, 3).tolist())
    path.write_text(f'TITLE "reelmap grade"\nLUT_3D_SIZE {len(lut)}\n{lines}\n', encoding="ascii")
