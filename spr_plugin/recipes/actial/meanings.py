"""What Actial's words mean, for whoever looks at a run."""

from spr_plugin.recipes.by_text import MEANINGS as RIGHT_OR_WRONG

MEANINGS = {
    **RIGHT_OR_WRONG,
    "exact": "Whether the first <answer> is the right one, letter by letter.",
    "format": "Whether the answer is a <think> and an <answer>, and nothing else.",
    "S": "0.5 · exact + 0.5 · format (`format_half: right`: of right answers alone); higher is better.",
    "no_pose": "The picture's record lacks rotation, centre or camera, or one is no number.",
    "no_rotation": "The picture's rotation is none: not orthonormal, or of another determinant than 1.",
    "picture_of_another_shape": "The picture is not as wide for its height as its camera's pictures.",
    "bad_model": "COLMAP's reconstruction of the scene cannot be read.",
    "one_picture": "The scene has fewer than two pictures with a pose.",
    "no_object": "The cameras of the scene look at no point, and none is given that they are about.",
    "no_orbit": "No two pictures of the scene are so far apart as is asked, with a clear side.",
    "no_shift": "No two pictures of the scene are near enough to each other to make a shift of.",
    "no_focal_length": "Nobody knows the focal length, without which no turn and no shift can be made.",
    "narrow_view": "The turned camera would see too little of what the picture shows.",
    "unclear_motion": "The motion between the two pictures is on no clear side.",
}
