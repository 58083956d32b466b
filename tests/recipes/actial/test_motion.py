"""Labels by rotation algebra against a naive reading: the cameras' own axes in the world, pair by pair."""

import math
import os
from collections import Counter

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spr_plugin.recipes.actial.motion import (
    FIXED,
    LEVEL,
    MOTIONS,
    MOVED,
    RESTED,
    TURNED,
    UNCLEAR,
    UPRIGHT,
    motion_of,
    seen_between,
)

SEED = int(os.environ.get("SPR_TEST_SEED", "0"))
EYE, AHEAD = np.eye(3), np.array([0, 0, 4.0])
DOWN = np.array([0, 0, -1.0])


def dot(a, b):
    return sum(one * other for one, other in zip(a, b))


def level(vector, down):
    """What of it is level."""
    return [one - dot(vector, down) * other for one, other in zip(vector, down)]


def side_of(value, least, most):
    """right, left, none, or "?"."""
    if abs(value) >= least:
        return "right" if value > 0 else "left"
    return "none" if abs(value) <= most else "?"


def naive(first, second, point, angle):
    """(move, object_move, turn, kind) in words, and how near a number is to one of the thresholds; all of it
    plain numbers, `angle` that between both cameras.
    """
    (right, down, ahead), here = first[0], first[1]
    (_, other_down, other_ahead), there = second[0], second[1]
    step, far = [b - a for a, b in zip(here, there)], math.dist(point, here)
    sideways = dot(step, right) / far
    seen = level(other_ahead, down)
    yaw = math.degrees(math.atan2(dot(seen, right), dot(seen, ahead)))
    look = level([a - b for a, b in zip(here, point)], down)
    size = math.sqrt(dot(look, look))
    (a, b, c), (x, y, z) = look, (-one for one in down)
    hand = [(b * z - c * y) / size, (c * x - a * z) / size, (a * y - b * x) / size] if size else None
    moved = math.sqrt(dot(step, step)) / far
    fell = dot(other_down, down) < UPRIGHT
    move, turn = side_of(sideways, MOVED, RESTED), side_of(yaw, TURNED, FIXED)
    by_object = dot(step, hand) / far if hand is not None else 0
    hands = side_of(by_object, MOVED, RESTED) if size > LEVEL * far else "?"
    if fell:
        return ("?", "?", "?", None), 0 if abs(dot(other_down, down) - UPRIGHT) < 1e-6 else 1
    sides, kind = ("left", "right"), None
    if move in sides and turn in sides:
        kind = "orbit"
    elif moved <= RESTED and turn in sides:
        kind = "turn"
    elif move in sides and angle <= FIXED:
        kind = "shift"
    elif moved <= RESTED and angle <= FIXED:
        kind = "still"
    numbers = [(abs(sideways), MOVED, RESTED), (abs(by_object), MOVED, RESTED), (moved, MOVED, RESTED)]
    numbers += [(abs(yaw), TURNED, FIXED), (angle, TURNED, FIXED), (size / far, LEVEL, LEVEL)]
    numbers += [(dot(other_down, down), UPRIGHT, UPRIGHT)]
    near = min(abs(value - border) for value, *borders in numbers for border in borders)
    return (move, hands, turn, kind), near


def poses(rng, count):
    """Two cameras and a point of each: any; such that look at it; turned, shifted and still ones."""
    some, others = (Rotation.random(count, rng).as_matrix() for _ in range(2))
    for number, (turn, other) in enumerate(zip(some, others)):
        how = number % 5
        point, centre = rng.normal(size=(2, 3)) * 3
        if how == 0:
            there = rng.normal(size=3) * 3
        elif how == 1:  # around the point, level
            angle, by = rng.uniform(0, 360), rng.uniform(-120, 120)
            (turn, centre), (other, there) = (
                camera(point, at, rng.uniform(3, 5)) for at in (angle, angle + by)
            )
        else:
            small = Rotation.from_rotvec(rng.normal(size=3) * rng.choice([0.001, 0.02, 0.3, 1.0])).as_matrix()
            about = Rotation.from_rotvec([0, rng.normal() * rng.choice([0.005, 0.3, 1.0]), 0]).as_matrix()
            other = (EYE if how == 4 else small if how == 3 else about) @ turn
            far = np.linalg.norm(point - centre)
            there = centre + rng.normal(size=3) * far * rng.choice([0.0, 0.001, 0.02, 0.1, 1.0])
        yield (turn, centre), (other, there), point


def camera(point, angle, radius):
    """On a level circle around a point, to which it looks."""
    ahead = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle)), 0])
    return np.array([np.cross(DOWN, ahead), DOWN, ahead]), point - radius * ahead


WORDS = {-1: "left", 0: "none", 1: "right", UNCLEAR: "?"}


def test_labels_of_five_thousand_random_poses():
    rng, found = np.random.default_rng(SEED), []
    samples = list(poses(rng, 5000))
    stacked = [np.array([sample[0][0] for sample in samples]), np.array([sample[0][1] for sample in samples])]
    others = [np.array([sample[1][0] for sample in samples]), np.array([sample[1][1] for sample in samples])]
    points = np.array([sample[2] for sample in samples])
    motion = motion_of(seen_between(tuple(stacked), tuple(others), points))
    between = stacked[0] @ others[0].transpose(0, 2, 1)
    angles = np.degrees(Rotation.from_matrix(between).magnitude())
    for number, (first, second, point) in enumerate(samples):
        sample = [[one.tolist() for one in camera] for camera in (first, second)]
        wanted, near = naive(*sample, point.tolist(), float(angles[number]))
        codes = (motion.move[number], motion.object_move[number], motion.turn[number])
        kind = motion.kind[number]
        got = (*(WORDS[int(code)] for code in codes), None if kind < 0 else [*MOTIONS][kind])
        assert got == wanted or near < 1e-6, (sample, got, wanted)
        found += [*zip(("move", "object_move", "turn", "kind"), got)]
    counts = Counter(found)
    assert all(
        counts[task, word] > 100 for task in ("move", "object_move", "turn") for word in WORDS.values()
    )
    assert all(counts["kind", kind] > 50 for kind in MOTIONS)


@pytest.mark.parametrize(
    "rotation, centre, wanted",
    [
        (EYE, [1, 0, 0], (1, -1, 0, "shift")),
        (EYE, [-1, 0, 0], (-1, 1, 0, "shift")),
        (EYE, [0, 0, 0], (0, 0, 0, "still")),
        (EYE, [0, 0, 2], (0, 0, 0, None)),  # ahead: not sideways, and not still
        (EYE, [0, -2, 0], (0, 0, 0, None)),
        (EYE, [0.2, 0, 0], (UNCLEAR, UNCLEAR, 0, None)),
        (Rotation.from_euler("y", -20, degrees=True).as_matrix(), [0, 0, 0], (0, 0, 1, "turn")),
        (Rotation.from_euler("y", 20, degrees=True).as_matrix(), [0, 0, 0], (0, 0, -1, "turn")),
        (Rotation.from_euler("y", 5, degrees=True).as_matrix(), [0, 0, 0], (0, 0, UNCLEAR, None)),
        (Rotation.from_euler("x", 20, degrees=True).as_matrix(), [0, 0, 0], (0, 0, 0, None)),
        (Rotation.from_euler("z", 90, degrees=True).as_matrix(), [1, 0, 0], (UNCLEAR,) * 3 + (None,)),
    ],
)
def test_motions_by_hand(rotation, centre, wanted):
    """The first camera stands at the origin with the world's axes, and looks at a point four units ahead."""
    motion = motion_of(seen_between((EYE, np.zeros(3)), (rotation, np.array(centre, float)), AHEAD))
    kind = None if motion.kind < 0 else [*MOTIONS][motion.kind]
    assert (motion.move, motion.object_move, motion.turn, kind) == wanted


def test_a_camera_that_faces_away_is_on_the_same_side_for_both():
    """So the object's view is no other name of the camera's own."""
    behind = np.array([0, 0, -4.0])
    motion = motion_of(seen_between((EYE, np.zeros(3)), (EYE, np.array([1.0, 0, 0])), behind))
    assert (motion.move, motion.object_move) == (1, 1)


def test_from_above_there_is_no_left_and_right():
    motion = motion_of(
        seen_between((EYE, np.zeros(3)), (EYE, np.array([1.0, 0, 0])), np.array([0, 4.0, 0.1]))
    )
    assert (motion.move, motion.object_move) == (1, UNCLEAR)


def test_of_a_camera_at_the_point_itself_nothing_but_its_turn_is_clear(recwarn):
    motion = motion_of(seen_between((EYE, np.zeros(3)), (EYE, np.array([1.0, 0, 0])), np.zeros(3)))
    assert (motion.move, motion.object_move, motion.turn, motion.kind) == (UNCLEAR, UNCLEAR, 0, -1)
    assert not recwarn.list


def test_around_an_object_all_three_are_one_bit():
    """Why turns and shifts are added: so it is with level cameras that look at one point."""
    rng = np.random.default_rng(SEED)
    for _ in range(500):
        angle, by = rng.uniform(0, 360), rng.uniform(20, 90) * rng.choice([-1, 1])
        first, second = (camera(np.zeros(3), at, rng.uniform(3, 5)) for at in (angle, angle + by))
        motion = motion_of(seen_between(first, second, np.zeros(3)))
        if motion.move != UNCLEAR:
            assert motion.move == -motion.turn == -motion.object_move != 0
