"""The kinds of product a drawn shop sells, with their packages, flavours and sizes. Used by `catalogue`."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]  # blue, green, red: OpenCV's order

# Each flavour: what it is drawn as, and its natural colour.
_SWEET: dict[str, tuple[str, Colour]] = {
    "ORANGE": ("citrus", (30, 140, 245)),
    "LEMON": ("citrus", (60, 220, 245)),
    "LIME": ("citrus", (60, 190, 140)),
    "APPLE": ("round", (60, 175, 110)),
    "CHERRY": ("round", (50, 30, 180)),
    "PEACH": ("round", (120, 165, 245)),
    "BERRY": ("berries", (140, 50, 110)),
    "GRAPE": ("berries", (120, 60, 80)),
    "VANILLA": ("flower", (150, 215, 240)),
    "COCOA": ("bean", (35, 60, 110)),
    "MINT": ("leaf", (120, 170, 70)),
    "HONEY": ("drop", (40, 165, 230)),
}
_SAVOURY: dict[str, tuple[str, Colour]] = {
    "TOMATO": ("round", (45, 50, 205)),
    "ONION": ("round", (110, 90, 160)),
    "CHILLI": ("chilli", (40, 40, 200)),
    "PAPRIKA": ("chilli", (35, 110, 230)),
    "CHEESE": ("wedge", (60, 190, 240)),
    "HERBS": ("leaf", (70, 135, 60)),
    "BASIL": ("leaf", (60, 165, 85)),
    "SEA SALT": ("drop", (200, 150, 70)),
    "OLIVE": ("berries", (60, 120, 110)),
    "WHEAT": ("grain", (70, 160, 215)),
    "RYE": ("grain", (45, 85, 140)),
    "PEPPER": ("bean", (60, 60, 70)),
}
_CARE: dict[str, tuple[str, Colour]] = {
    "ROSE": ("flower", (150, 110, 225)),
    "LAVENDER": ("flower", (200, 110, 150)),
    "CAMOMILE": ("flower", (70, 205, 240)),
    "ALOE": ("leaf", (110, 175, 90)),
    "MINT": ("leaf", (160, 180, 70)),
    "SEA": ("drop", (200, 150, 60)),
    "HONEY": ("drop", (50, 165, 225)),
    "CITRUS": ("citrus", (40, 170, 245)),
    "PEACH": ("round", (130, 165, 240)),
    "OAT": ("grain", (130, 180, 210)),
}


@dataclass(frozen=True)
class Kind:
    """What a family can be: its branch of the product tree, package shapes, flavours (mark, colour) and sizes."""

    branch: str
    name: str
    shapes: tuple[str, ...]
    flavours: dict[str, tuple[str, Colour]]
    sizes: tuple[str, ...]


KINDS = (
    Kind("Drinks", "Juice", ("carton", "bottle"), _SWEET, ("1 L", "1.5 L", "750 ml")),
    Kind("Drinks", "Soda", ("can", "bottle"), _SWEET, ("330 ml", "250 ml", "500 ml")),
    Kind("Drinks", "Yoghurt", ("carton", "tub"), _SWEET, ("500 g", "750 g", "1 kg")),
    Kind("Breakfast", "Jam", ("jar",), _SWEET, ("340 g", "280 g", "450 g")),
    Kind("Breakfast", "Muesli", ("box", "pouch"), _SWEET, ("500 g", "375 g", "750 g")),
    Kind("Breakfast", "Tea", ("case", "box"), _SWEET, ("20 BAGS", "25 BAGS", "50 BAGS")),
    Kind("Snacks", "Crisps", ("bag",), _SAVOURY, ("150 g", "175 g", "250 g")),
    Kind("Snacks", "Biscuits", ("case", "bar"), _SWEET, ("200 g", "150 g", "300 g")),
    Kind("Snacks", "Chocolate", ("bar",), _SWEET, ("100 g", "85 g", "200 g")),
    Kind("Snacks", "Crackers", ("box", "case"), _SAVOURY, ("200 g", "125 g", "250 g")),
    Kind("Pantry", "Soup", ("can", "pouch"), _SAVOURY, ("400 g", "300 g", "800 g")),
    Kind("Pantry", "Sauce", ("jar", "bottle"), _SAVOURY, ("350 g", "250 g", "500 g")),
    Kind("Pantry", "Pasta", ("bag", "box"), _SAVOURY, ("500 g", "400 g", "1 kg")),
    Kind("Care", "Shampoo", ("bottle",), _CARE, ("250 ml", "300 ml", "400 ml")),
    Kind("Care", "Cream", ("tube", "tub"), _CARE, ("75 ml", "100 ml", "150 ml")),
    Kind("Care", "Soap", ("case", "pouch"), _CARE, ("100 g", "90 g", "125 g")),
)

# Width over height of the front; depth over width of the boxes.
ASPECTS = {
    "box": 0.68, "carton": 0.46, "case": 1.45, "bar": 2.4, "bottle": 0.38, "can": 0.56,
    "jar": 0.72, "tub": 0.95, "pouch": 0.70, "bag": 0.74, "tube": 0.36,
}  # fmt: skip
