"""Where faces and lines of text are in a picture: two small networks of others, run by OpenCV.

in   picture  uint8 [H, W, 3] RGB, both sides multiples of 32
out  boxes    float32 [n, 5]  left, top, right, bottom as shares of the picture; confidence in [0, 1]

Faces: CenterFace (Xu et al., https://arxiv.org/abs/1911.03599): a heat map of centres at a quarter of the
size, and for each of its points the logarithm of the box's height and width, and the centre's offset.
Text: a DBNet (Liao et al., https://arxiv.org/abs/1911.08947): a map of the cores of lines of text.

On one core a picture of 384 x 224 takes 14 and 23 ms. Where they come from: stages/nn/detectors/README.md.
"""

from pathlib import Path

import cv2
import numpy as np

FOLDER = Path(__file__).parent / "detectors"
STEP = 32  # sides are multiples of it
FACE_STRIDE = 4
FACE_OUTPUTS = ("537", "538", "539", "540")  # centres, sizes, offsets, landmarks
SURE_FACE, SURE_TEXT = 0.5, 0.6
OVERLAP = 0.3
TEXT_CORE = 0.3  # of the map: inside a line
# A line's core is its box shrunk by this share of its height on each side.
SHRUNK = 0.4
# What PP-OCR's networks see: ImageNet's means and deviations.
MEAN, DEVIATION = np.float32([123.7, 116.3, 103.5]), np.float32([58.4, 57.1, 57.4])


class Faces:
    def __init__(self) -> None:
        self.net = cv2.dnn.readNetFromONNX(str(FOLDER / "faces.onnx"))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Boxes of faces, the surest first."""
        height, width = picture.shape[:2]
        self.net.setInput(cv2.dnn.blobFromImage(picture))
        centres, sizes, offsets, _ = self.net.forward(FACE_OUTPUTS)
        rows, columns = np.nonzero(centres[0, 0] > SURE_FACE)
        confidence = centres[0, 0, rows, columns]
        across = np.exp(sizes[0, ::-1, rows, columns]) * FACE_STRIDE  # [n, 2]: width, height
        middle = np.stack([columns, rows], 1) + offsets[0, ::-1, rows, columns] + 0.5
        corner = middle * FACE_STRIDE - across / 2
        rectangles = np.hstack([corner, across]).astype(np.float32)
        kept = cv2.dnn.NMSBoxes(rectangles, confidence, SURE_FACE, OVERLAP)
        best = np.asarray(kept, int).ravel()
        found = np.hstack([corner, corner + across])[best] / (width, height, width, height)
        return np.hstack([found.clip(0, 1), confidence[best, None]]).astype(np.float32)


class Text:
    def __init__(self) -> None:
        self.net = cv2.dnn.readNetFromONNX(str(FOLDER / "text.onnx"))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Boxes of lines of text."""
        height, width = picture.shape[:2]
        self.net.setInput(cv2.dnn.blobFromImage((picture - MEAN) / DEVIATION))
        core = self.net.forward()[0, 0]
        count, labels, stats, _ = cv2.connectedComponentsWithStats((core > TEXT_CORE).astype(np.uint8))
        found = []
        for label in range(1, count):
            left, top, across, down, _ = stats[label]
            confidence = float(core[labels == label].mean())
            if confidence < SURE_TEXT or across < down:  # letters stand side by side
                continue
            grown = SHRUNK * down + 1
            box = (left - grown, top - grown, left + across + grown, top + down + grown)
            found.append((*np.divide(box, (width, height, width, height)).clip(0, 1), confidence))
        return np.array(found, np.float32).reshape(-1, 5)
