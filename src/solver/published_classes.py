"""The classes behind the checkpoints that D-FINE's authors publish, which do not say them."""

from collections.abc import Mapping

from torch import Tensor

from ..structures import ClassNames

SCORE_BIAS = "decoder.enc_score_head.bias"

# fmt: off
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)
"""COCO's categories (annotations of 2014 and 2017), by ascending id."""

OBJECTS365_NAMES = (
    "Person", "Sneakers", "Chair", "Other Shoes", "Hat", "Car", "Lamp", "Glasses", "Bottle", "Desk", "Cup",
    "Street Lights", "Cabinet/shelf", "Handbag/Satchel", "Bracelet", "Plate", "Picture/Frame", "Helmet",
    "Book", "Gloves", "Storage box", "Boat", "Leather Shoes", "Flower", "Bench", "Potted Plant",
    "Bowl/Basin", "Flag", "Pillow", "Boots", "Vase", "Microphone", "Necklace", "Ring", "SUV", "Wine Glass",
    "Belt", "Moniter/TV", "Backpack", "Umbrella", "Traffic Light", "Speaker", "Watch", "Tie",
    "Trash bin Can", "Slippers", "Bicycle", "Stool", "Barrel/bucket", "Van", "Couch", "Sandals", "Bakset",
    "Drum", "Pen/Pencil", "Bus", "Wild Bird", "High Heels", "Motorcycle", "Guitar", "Carpet", "Cell Phone",
    "Bread", "Camera", "Canned", "Truck", "Traffic cone", "Cymbal", "Lifesaver", "Towel", "Stuffed Toy",
    "Candle", "Sailboat", "Laptop", "Awning", "Bed", "Faucet", "Tent", "Horse", "Mirror", "Power outlet",
    "Sink", "Apple", "Air Conditioner", "Knife", "Hockey Stick", "Paddle", "Pickup Truck", "Fork",
    "Traffic Sign", "Ballon", "Tripod", "Dog", "Spoon", "Clock", "Pot", "Cow", "Cake", "Dinning Table",
    "Sheep", "Hanger", "Blackboard/Whiteboard", "Napkin", "Other Fish", "Orange/Tangerine", "Toiletry",
    "Keyboard", "Tomato", "Lantern", "Machinery Vehicle", "Fan", "Green Vegetables", "Banana",
    "Baseball Glove", "Airplane", "Mouse", "Train", "Pumpkin", "Soccer", "Skiboard", "Luggage",
    "Nightstand", "Tea pot", "Telephone", "Trolley", "Head Phone", "Sports Car", "Stop Sign", "Dessert",
    "Scooter", "Stroller", "Crane", "Remote", "Refrigerator", "Oven", "Lemon", "Duck", "Baseball Bat",
    "Surveillance Camera", "Cat", "Jug", "Broccoli", "Piano", "Pizza", "Elephant", "Skateboard",
    "Surfboard", "Gun", "Skating and Skiing shoes", "Gas stove", "Donut", "Bow Tie", "Carrot", "Toilet",
    "Kite", "Strawberry", "Other Balls", "Shovel", "Pepper", "Computer Box", "Toilet Paper",
    "Cleaning Products", "Chopsticks", "Microwave", "Pigeon", "Baseball", "Cutting/chopping Board",
    "Coffee Table", "Side Table", "Scissors", "Marker", "Pie", "Ladder", "Snowboard", "Cookies", "Radiator",
    "Fire Hydrant", "Basketball", "Zebra", "Grape", "Giraffe", "Potato", "Sausage", "Tricycle", "Violin",
    "Egg", "Fire Extinguisher", "Candy", "Fire Truck", "Billards", "Converter", "Bathtub", "Wheelchair",
    "Golf Club", "Briefcase", "Cucumber", "Cigar/Cigarette ", "Paint Brush", "Pear", "Heavy Truck",
    "Hamburger", "Extractor", "Extention Cord", "Tong", "Tennis Racket", "Folder", "American Football",
    "earphone", "Mask", "Kettle", "Tennis", "Ship", "Swing", "Coffee Machine", "Slide", "Carriage", "Onion",
    "Green beans", "Projector", "Frisbee", "Washing Machine/Drying Machine", "Chicken", "Printer",
    "Watermelon", "Saxophone", "Tissue", "Toothbrush", "Ice cream", "Hotair ballon", "Cello",
    "French Fries", "Scale", "Trophy", "Cabbage", "Hot dog", "Blender", "Peach", "Rice", "Wallet/Purse",
    "Volleyball", "Deer", "Goose", "Tape", "Tablet", "Cosmetics", "Trumpet", "Pineapple", "Golf Ball",
    "Ambulance", "Parking meter", "Mango", "Key", "Hurdle", "Fishing Rod", "Medal", "Flute", "Brush",
    "Penguin", "Megaphone", "Corn", "Lettuce", "Garlic", "Swan", "Helicopter", "Green Onion", "Sandwich",
    "Nuts", "Speed Limit Sign", "Induction Cooker", "Broom", "Trombone", "Plum", "Rickshaw", "Goldfish",
    "Kiwi fruit", "Router/modem", "Poker Card", "Toaster", "Shrimp", "Sushi", "Cheese", "Notepaper",
    "Cherry", "Pliers", "CD", "Pasta", "Hammer", "Cue", "Avocado", "Hamimelon", "Flask", "Mushroon",
    "Screwdriver", "Soap", "Recorder", "Bear", "Eggplant", "Board Eraser", "Coconut", "Tape Measur/ Ruler",
    "Pig", "Showerhead", "Globe", "Chips", "Steak", "Crosswalk Sign", "Stapler", "Campel", "Formula 1 ",
    "Pomegranate", "Dishwasher", "Crab", "Hoverboard", "Meat ball", "Rice Cooker", "Tuba", "Calculator",
    "Papaya", "Antelope", "Parrot", "Seal", "Buttefly", "Dumbbell", "Donkey", "Lion", "Urinal", "Dolphin",
    "Electric Drill", "Hair Dryer", "Egg tart", "Jellyfish", "Treadmill", "Lighter", "Grapefruit",
    "Game board", "Mop", "Radish", "Baozi", "Target", "French", "Spring Rolls", "Monkey", "Rabbit",
    "Pencil Case", "Yak", "Red Cabbage", "Binoculars", "Asparagus", "Barbell", "Scallop", "Noddles", "Comb",
    "Dumpling", "Oyster", "Table Teniis paddle", "Cosmetics Brush/Eyeliner Pencil", "Chainsaw", "Eraser",
    "Lobster", "Durian", "Okra", "Lipstick", "Cosmetics Mirror", "Curling", "Table Tennis ",
)
"""Objects365's categories (second version), ids 1 to 365, in the spelling of its annotation files."""
# fmt: on

NOT_IN_COCO = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO = ClassNames(COCO_NAMES, tuple(i for i in range(1, 91) if i not in NOT_IN_COCO))
OBJECTS365 = ClassNames(OBJECTS365_NAMES, tuple(range(1, 366)))
PUBLISHED = {80: COCO, 365: OBJECTS365}

SAME_CLASS = {
    "bowl/basin": "bowl",
    "dinning table": "dining table",
    "hair dryer": "hair drier",
    "handbag/satchel": "handbag",
    "luggage": "suitcase",
    "moniter/tv": "tv",
    "orange/tangerine": "orange",
    "other balls": "sports ball",
    "skiboard": "skis",
    "stuffed toy": "teddy bear",
    "wild bird": "bird",
}
"""Objects365's names, in small letters, for what COCO calls otherwise."""


def published_classes(state: Mapping[str, Tensor]) -> ClassNames | None:
    """The classes of a published D-FINE model with these weights, known by how many it scores.

    Args:
        state: Weights under upstream's names, `module.` (DDP) before them or not.

    Returns:
        COCO's for 80 rows, Objects365's for 365; None for any other number.
    """
    return PUBLISHED.get(_num_rows(state))


def has_row_of_no_class(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of the authors' Objects365 models as published.

    Those have a row for each number up to the last category id; none of Objects365's ids is 0.
    """
    return _num_rows(state) == 1 + OBJECTS365.ids[-1]


def _num_rows(state: Mapping[str, Tensor]) -> int:
    bias = state.get(SCORE_BIAS, state.get(f"module.{SCORE_BIAS}"))
    return 0 if bias is None else len(bias)
