"""Random changes of pictures: what may change, what may not, and that the draw decides all of it."""

import numpy as np
import pytest
from PIL import Image

from contextjax.types import UserError
from data_pipelines.augment import GREY, MODES, RATIO, Augment, crop_box, rand_augment

SIZE = 32


def rng(seed=0):
    return np.random.default_rng(seed)


def pictures(count=3, seed=0):
    return list(rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))


def gradient():
    """Red grows to the right, green downwards: a pixel tells where it comes from."""
    ramp = np.broadcast_to(np.linspace(0, 255, SIZE).astype(np.uint8), (SIZE, SIZE))
    return np.stack([ramp, ramp.T, np.full_like(ramp, 7)], axis=-1)


def corner(picture):
    """Returns the region of the gradient that a changed picture shows, and whether it was mirrored."""
    mirrored = picture[0, 0, 0] > picture[0, -1, 0]
    return (*np.sort(picture[0, [0, -1], 0]).tolist(), *picture[[0, -1], 0, 1].tolist()), bool(mirrored)


@pytest.mark.parametrize("name", MODES)
def test_pictures_stay_pictures_and_the_draw_decides(name):
    given = pictures()
    before = [picture.copy() for picture in given]
    found = Augment(name)(given, rng(5))
    assert len(found) == 3 and all(p.shape == (SIZE, SIZE, 3) and p.dtype == np.uint8 for p in found)
    np.testing.assert_array_equal(found, Augment(name)(given, rng(5)))
    np.testing.assert_array_equal(given, before)
    changed = any((a != b).any() for a, b in zip(found, Augment(name)(given, rng(6)), strict=True))
    assert changed == (name != "none")


def test_none_changes_nothing():
    given = pictures()
    np.testing.assert_array_equal(Augment("none")(given, rng()), given)


def test_the_candidates_of_a_set_share_their_crop_and_are_never_mirrored():
    draws = [[corner(p) for p in Augment("set")([gradient()] * 4, rng(seed))] for seed in range(40)]
    assert all(len(set(draw)) == 1 for draw in draws)
    assert not any(mirrored for draw in draws for _, mirrored in draw)
    assert len({draw[0] for draw in draws}) > 30


def test_the_published_augmentation_is_a_crop_a_flip_and_randaugment_of_each_picture_by_itself():
    """A crop of 20 to 100 % of the area, half of them mirrored, then RandAugment(2, 5): as drawn in this order."""
    for seed in range(20):
        draw, expected = rng(seed), []
        for picture in pictures():
            box, mirrored = crop_box(SIZE, (0.2, 1.0), draw), draw.random() < 0.5
            image = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
            expected.append(np.asarray(rand_augment(image, draw, operations=2, magnitude=5)))
        np.testing.assert_array_equal(Augment("published")(pictures(), rng(seed)), expected)


def test_the_settings_of_a_mode_can_be_replaced():
    whole = Augment("set", scale=(1.0, 1.0), flip=False)
    found = [whole([gradient()], rng(seed))[0] for seed in range(5)]
    assert all((picture == gradient()).all() for picture in found)
    mirrored = [corner(p)[1] for seed in range(20) for p in Augment("set", flip=True)([gradient()] * 2, rng(seed))]
    assert mirrored[::2] == mirrored[1::2] and 0 < sum(mirrored) < 40


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.5, 1.0), (0.3, 0.3)])
def test_crops_are_inside_and_of_the_asked_size(scale):
    boxes = np.asarray([crop_box(200, scale, rng(seed)) for seed in range(400)])
    assert boxes.min() >= 0 and boxes.max() <= 200
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, ratio = width * height / 200**2, width / height
    assert share.min() > scale[0] - 0.01 and share.max() < scale[1] + 0.01
    assert ratio.min() > RATIO[0] - 0.02 and ratio.max() < RATIO[1] + 0.02
    assert ratio.min() < 0.85 and ratio.max() > 1.2
    if scale[0] < scale[1]:
        assert share.max() - share.min() > 0.8 * (scale[1] - scale[0])
    assert len(np.unique(boxes[:, 0])) > 20 and len(np.unique(boxes[:, 1])) > 20


def test_a_crop_of_the_whole_is_the_whole():
    assert {crop_box(1, (1.0, 1.0), rng(seed)) for seed in range(9)} == {(0, 0, 1, 1)}


def test_rand_augment_has_ten_operations_in_two_signs():
    """Three of them know no strength, so that there are three and twice seven pictures."""
    image = Image.fromarray(np.asarray(Image.fromarray(pictures(1)[0] // 3 + 60).resize((64, 64))))
    found = {rand_augment(image, rng(seed), operations=1).tobytes() for seed in range(300)}
    assert len(found) == 17 and image.tobytes() in found
    assert rand_augment(image, rng(), operations=0).tobytes() == image.tobytes()


def test_magnitude_nought_moves_nothing():
    image = Image.new("RGB", (64, 64), (10, 20, 30))
    found = {rand_augment(image, rng(seed), operations=1, magnitude=0).getpixel((0, 0)) for seed in range(60)}
    strong = {rand_augment(image, rng(seed), operations=1, magnitude=10).getpixel((0, 0)) for seed in range(60)}
    assert GREY not in found and GREY in strong


def test_an_unknown_augmentation_is_reported():
    with pytest.raises(UserError, match=r"'flip'; known are none, light, published, set"):
        Augment("flip")


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.6, 0.5), (0.5, 1.2)])
def test_impossible_scales_are_reported(scale):
    with pytest.raises(UserError, match="expected shares of the area"):
        Augment("set", scale=scale)


def test_the_reference_alone_is_changed():
    """CoVR-2's: a crop of 50 to 100 % of the area, a flip, RandAugment(2, 5); targets stay what they are."""
    reference, *targets = given = [gradient()] * 3
    for seed in range(10):
        draw = rng(seed)
        changed, *kept = Augment("reference")(given, rng(seed))
        np.testing.assert_array_equal(kept, targets)
        box, mirrored = crop_box(SIZE, (0.5, 1.0), draw), bool(draw.random() < 0.5)
        image = Image.fromarray(reference).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
        np.testing.assert_array_equal(changed, np.asarray(rand_augment(image, draw, operations=2)))
