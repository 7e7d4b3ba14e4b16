"""The demo library's scenes: each takes a random generator and returns a painter, seconds -> u8[H, W, 3].

What never changes is painted once on a wide canvas that the camera moves over; what moves are small
sprites with soft edges, so that a frame costs milliseconds.
"""

from collections.abc import Callable

import numpy as np

W, H = 640, 360
Painter = Callable[[float], np.ndarray]
Y, X = np.mgrid[0:H, 0:W].astype(np.float32)


def gradient(top: tuple, bottom: tuple, width: int = W, height: int = H) -> np.ndarray:
    """f32[height, width, 3] from one colour down to another."""
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    rows = np.float32(top) * (1 - share) + np.float32(bottom) * share
    return np.repeat(rows, width, axis=1)


def cover(canvas: np.ndarray, mask: np.ndarray, colour: tuple) -> None:
    """Paint `colour` over canvas f32[h, w, 3] where mask f32[h, w] says, in place."""
    canvas += mask[..., None] * (np.float32(colour) - canvas)


def ridge(rng: np.random.Generator, width: int, height: int, base: float, rough: float) -> np.ndarray:
    """Mask f32[height, width] of everything below a random skyline."""
    x = np.arange(width, dtype=np.float32) * 2 * np.pi / width
    line = sum(rng.normal() / k * np.sin(k * x + rng.uniform(0, 6.3)) for k in range(1, 14))
    top = height * (base - rough * line)
    return np.clip(np.mgrid[0:height, 0:width][0] - top[None], 0, 1).astype(np.float32)


def disc(radius: int, soft: float = 1.5) -> np.ndarray:
    """Mask f32[2r, 2r] of a soft-edged disc."""
    y, x = np.mgrid[0 : 2 * radius, 0 : 2 * radius] - (radius - 0.5)
    return np.clip((radius - soft / 2 - np.hypot(y, x)) / soft + 0.5, 0, 1).astype(np.float32)


def stamp(picture: np.ndarray, mask: np.ndarray, colour: tuple, x: float, y: float) -> None:
    """Paint a sprite, centred at (x, y), on picture u8[H, W, 3], clipped, in place."""
    height, width = mask.shape
    left, top = round(x - width / 2), round(y - height / 2)
    x0, x1 = max(0, left), min(picture.shape[1], left + width)
    y0, y1 = max(0, top), min(picture.shape[0], top + height)
    if x0 >= x1 or y0 >= y1:
        return
    part = picture[y0:y1, x0:x1]
    share = mask[y0 - top : y1 - top, x0 - left : x1 - left, None]
    part[:] = part + share * (np.float32(colour) - part)


def sunset(rng: np.random.Generator) -> Painter:
    """A slow pan over hills and glittering water."""
    canvas = gradient((38, 40, 92), (255, 158, 78), W + 200)
    x = np.arange(W + 200)
    glow = np.exp(-((np.mgrid[0:H, 0 : W + 200][0] - 205) ** 2 + (x - 420) ** 2) / 9000)
    cover(canvas, 0.7 * glow.astype(np.float32), (255, 226, 150))
    cover(canvas, ridge(rng, W + 200, H, 0.55, 0.03), (96, 60, 96))
    cover(canvas, ridge(rng, W + 200, H, 0.62, 0.04), (52, 36, 70))
    canvas[250:] = gradient((150, 92, 88), (26, 30, 62), W + 200, H - 250)
    land = canvas.astype(np.uint8)
    rows = rng.integers(256, H, 60)
    starts, lengths = rng.uniform(0, W, 60), rng.uniform(10, 60, 60)
    sun = disc(30, 3)

    def paint(t: float) -> np.ndarray:
        left = int(12 * t)
        picture = land[:, left : left + W].copy()
        stamp(picture, sun[: 58 - int(2 * t)], (255, 240, 190), 420 - left, 205 + t)
        for row, start, length in zip(rows, starts, lengths, strict=True):
            x0 = int((start + 30 * np.sin(1.3 * t + row)) % W)
            picture[row, x0 : x0 + int(length)] = (255, 190, 120)
        boat = int(60 + 14 * t)
        picture[262:268, boat : boat + 46] = (20, 18, 30)
        picture[226:262, boat + 22 : boat + 24] = (20, 18, 30)
        return picture

    return paint


def still_dunes(rng: np.random.Generator) -> Painter:
    """Nothing happens: a fixed camera, and grain."""
    canvas = gradient((150, 178, 204), (226, 210, 178))
    for base, colour in ((0.6, (206, 178, 130)), (0.72, (188, 154, 104)), (0.86, (160, 124, 80))):
        cover(canvas, ridge(rng, W, H, base, 0.025), colour)
    land = canvas.astype(np.int16)
    grain = rng.integers(-3, 4, (4, H, W, 1)).astype(np.int16)
    return lambda t: np.clip(land + grain[int(t * 12) % 4], 0, 255).astype(np.uint8)


def city(rng: np.random.Generator) -> Painter:
    """A fast pan along a skyline at night, traffic below."""
    wide = 3 * W
    canvas = gradient((10, 12, 34), (58, 42, 84), wide)
    for depth, shade in ((0, 26), (1, 14)):
        x = 0
        while x < wide:
            width, height = int(rng.integers(30, 80)), int(rng.integers(70, 210) - 40 * depth)
            canvas[300 - height : 300, x : x + width] = (shade, shade + 2, shade + 16)
            for row in range(300 - height + 8, 292, 14):
                for column in range(x + 5, min(x + width - 6, wide), 10):
                    if rng.random() < 0.4:
                        canvas[row : row + 7, column : column + 5] = (
                            (250, 206, 120) if depth else (120, 110, 90)
                        )
            x += width + int(rng.integers(0, 12))
    canvas[300:] = (18, 18, 24)
    streets = canvas.astype(np.uint8)
    lamp = disc(7, 6)
    cars = [
        (rng.uniform(0, W), rng.uniform(80, 260) * rng.choice([-1, 1]), rng.integers(312, 350))
        for _ in range(14)
    ]
    speed = rng.uniform(60, 140)

    def paint(t: float) -> np.ndarray:
        left = int(speed * t) % (wide - W)
        picture = streets[:, left : left + W].copy()
        for start, v, row in cars:
            colour = (255, 244, 210) if v > 0 else (255, 60, 50)
            stamp(picture, lamp, colour, (start + v * t) % (W + 40) - 20, row)
        return picture

    return paint


def ball(rng: np.random.Generator) -> Painter:
    """Balls that bounce across a meadow."""
    canvas = gradient((96, 170, 240), (214, 236, 250))
    for base, colour in ((0.62, (120, 180, 96)), (0.76, (84, 150, 66))):
        cover(canvas, ridge(rng, W, H, base, 0.02), colour)
    meadow = canvas.astype(np.uint8)
    colours = ((228, 60, 48), (250, 196, 40), (72, 84, 220))
    balls = [
        (disc(int(r)), rng.uniform(0, W), rng.uniform(140, 300), rng.uniform(0.5, 0.9)) for r in (34, 26, 20)
    ]

    def paint(t: float) -> np.ndarray:
        picture = meadow.copy()
        for (mask, start, speed, period), colour in zip(balls, colours, strict=True):
            phase = t / period % 1
            x = (start + speed * t) % (W + 80) - 40
            y = 310 - len(mask) / 2 - 180 * 4 * phase * (1 - phase)
            stamp(picture, 0.4 * mask[::3], (20, 50, 20), x, 316)
            stamp(picture, mask, colour, x, y)
            stamp(picture, mask[::3, ::3], (255, 255, 255), x - len(mask) / 6, y - len(mask) / 6)
        return picture

    return paint


def slide(rng: np.random.Generator) -> Painter:
    """A talk: bars for words that come line by line, and a small speaker who nods."""
    accent = tuple(int(v) for v in rng.integers(40, 180, 3))
    page = np.full((H, W, 3), 244, np.uint8)
    page[:54] = accent
    page[18:36, 30 : 30 + int(rng.integers(180, 320))] = 255
    widths = rng.integers(180, 380, 7)
    head, body = disc(26), disc(46)

    def paint(t: float) -> np.ndarray:
        picture = page.copy()
        for line in range(min(7, 1 + int(t / 1.2))):
            top = 84 + 34 * line
            picture[top : top + 12, 34 : 34 + widths[line]] = (70, 74, 86)
            picture[top : top + 12, 18:28] = accent
        picture[236:, 520:] = (206, 212, 222)
        stamp(picture, body, (60, 76, 110), 580, 356)
        stamp(picture, head, (224, 182, 150), 580 + 2 * np.sin(2.1 * t), 288 + 2 * np.sin(5 * t))
        return picture

    return paint


def stars(rng: np.random.Generator) -> Painter:
    """A flight through stars past a planet."""
    space = gradient((8, 6, 22), (26, 12, 44)).astype(np.uint8)
    direction = rng.uniform(-1, 1, (220, 2)) * (W, H)
    depth = rng.uniform(0.05, 1, 220)
    glow = [disc(r, r) for r in (2, 3, 4, 6)]
    colour = tuple(int(v) for v in rng.integers(90, 230, 3))
    planets = [disc(r, 2) for r in range(20, 110, 3)]

    def paint(t: float) -> np.ndarray:
        picture = space.copy()
        for (x, y), start in zip(direction, depth, strict=True):
            z = (start - 0.35 * t) % 1 + 0.04
            mask = glow[int(3.99 * (1 - min(z, 1)))]
            stamp(picture, mask, (235, 238, 255), W / 2 + 0.25 * x / z, H / 2 + 0.25 * y / z)
        mask = planets[min(len(planets) - 1, int(7 * t))]
        stamp(picture, mask, colour, 430 + 12 * t, 150 + 5 * t)
        stamp(picture, 0.5 * mask, (0, 0, 10), 430 + 12 * t + len(mask) / 4, 150 + 5 * t + len(mask) / 8)
        return picture

    return paint


def fireworks(rng: np.random.Generator) -> Painter:
    """A burst and a flash every 0.6 s over dark roofs."""
    canvas = gradient((6, 8, 26), (30, 22, 50))
    cover(canvas, ridge(rng, W, H, 0.86, 0.02), (4, 4, 10))
    night = canvas.astype(np.uint8)
    spark = [disc(r, r) for r in (5, 4, 3, 2)]
    bursts = []
    for number in range(16):
        angles, speeds = rng.uniform(0, 6.3, 70), rng.uniform(0.3, 1, 70)
        colour = tuple(int(v) for v in rng.permutation([255, rng.integers(120, 230), 80]))
        bursts.append((0.6 * number, rng.uniform(100, 540), rng.uniform(60, 190), angles, speeds, colour))

    def paint(t: float) -> np.ndarray:
        picture = night.copy()
        for begin, x, y, angles, speeds, colour in bursts:
            age = t - begin
            if not 0 <= age < 1.4:
                continue
            if age < 0.06:
                picture += ((255 - picture) * 0.35).astype(np.uint8)
            reach = 150 * (1 - np.exp(-2.2 * age)) * speeds
            mask = spark[int(age / 0.36)] * np.float32(1 - age / 1.4)
            for angle, r in zip(angles, reach, strict=True):
                stamp(picture, mask, colour, x + r * np.cos(angle), y + r * np.sin(angle) + 40 * age * age)
        return picture

    return paint


def reef(rng: np.random.Generator) -> Painter:
    """Fish and bubbles in shafts of light, the camera drifting."""
    canvas = gradient((40, 150, 190), (6, 34, 74), W + 240)
    cover(canvas, ridge(rng, W + 240, H, 0.84, 0.04), (30, 60, 60))
    for x, colour in zip(rng.uniform(0, W + 240, 16), rng.integers(60, 240, (16, 3)), strict=True):
        mask = disc(int(rng.integers(14, 34)), 4)
        water = canvas[-len(mask) - 6 : -6]
        left = int(min(x, W + 240 - len(mask)))
        cover(water[:, left : left + len(mask)], 0.8 * mask, tuple(colour))
    sea = canvas.astype(np.uint8)
    y, x = np.mgrid[-14:15, -26:27]
    fish = ((x / 18) ** 2 + (y / 10) ** 2 < 1) | ((x < -12) & (np.abs(y) < -(x + 12) * 0.9))
    fish = fish.astype(np.float32)
    shoal = [
        (rng.uniform(0, W), rng.uniform(50, 290), rng.uniform(40, 150) * rng.choice([-1, 1]), tuple(c))
        for c in rng.integers(90, 255, (14, 3))
    ]
    bubble = disc(5, 3)
    bubbles = [(rng.uniform(0, W), rng.uniform(0, H), rng.uniform(40, 90)) for _ in range(24)]

    def paint(t: float) -> np.ndarray:
        left = int(20 * t) % 240
        picture = sea[:, left : left + W].copy()
        for start, row, speed, colour in shoal:
            mask = fish if speed > 0 else fish[:, ::-1]
            stamp(picture, mask, colour, (start + speed * t) % (W + 60) - 30, row + 8 * np.sin(2 * t + start))
        for start, row, speed in bubbles:
            stamp(
                picture, 0.5 * bubble, (220, 245, 255), start + 5 * np.sin(3 * t + row), (row - speed * t) % H
            )
        return picture

    return paint


SCENES: dict[str, Callable[[np.random.Generator], Painter]] = {
    "sunset": sunset,
    "still_dunes": still_dunes,
    "city": city,
    "ball": ball,
    "slide": slide,
    "stars": stars,
    "fireworks": fireworks,
    "reef": reef,
}
