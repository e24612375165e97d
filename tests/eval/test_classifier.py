"""The classifier on squares whose only difference is which way they go."""

from __future__ import annotations

import pytest
import torch

from eval.classifier import _augment, accuracy, recognised, shrink, train_classifier


def moving_squares(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (N, 8, 40, 40, 3) of a square going right, left, down or up from anywhere."""
    generator = torch.Generator().manual_seed(seed)
    clips, labels = [], []
    for label, (dy, dx) in enumerate(((0, 2), (0, -2), (2, 0), (-2, 0))):
        for _ in range(per_class):
            y, x = torch.randint(12, 21, (2,), generator=generator).tolist()
            clip = torch.full((8, 40, 40, 3), 40)
            colour = torch.randint(120, 256, (3,), generator=generator)
            for t in range(8):
                top, left = y + dy * (t - 4), x + dx * (t - 4)
                clip[t, top : top + 8, left : left + 8] = colour
            clips.append(clip.to(torch.uint8))
            labels.append(label)
    return torch.stack(clips), torch.tensor(labels)


def test_the_direction_of_motion_is_learned_and_reproducible() -> None:
    train, test = moving_squares(16, seed=0), moving_squares(8, seed=1)
    model = train_classifier(*train, num_classes=4, num_steps=40, batch_size=16)
    value, confusion = accuracy(model, [test])
    assert value >= 0.9
    assert confusion.sum(1).tolist() == [8] * 4
    assert confusion.trace().item() / confusion.sum().item() == pytest.approx(value)
    with torch.no_grad():  # no clip is judged by its batch
        torch.testing.assert_close(model(test[0][:1]), model(test[0])[:1])
    reverse = accuracy(model, [(test[0].flip(1), test[1])])[0]
    assert reverse < 0.2  # the same frames backwards are other classes: it is not the look that is told apart

    state = torch.random.get_rng_state()
    again = train_classifier(*train, num_classes=4, num_steps=3, batch_size=16, seed=3)
    once_more = train_classifier(*train, num_classes=4, num_steps=3, batch_size=16, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value_once in again.state_dict().items():
        assert torch.equal(value_once, once_more.state_dict()[name])


def test_large_clips_are_averaged_down_and_small_ones_kept() -> None:
    clips = torch.zeros(1, 2, 64, 48, 3, dtype=torch.uint8)
    clips[:, :, ::2] = 100
    assert shrink(clips, 32).shape == (1, 2, 32, 32, 3)
    assert shrink(clips, 32).unique().tolist() == [50]
    assert shrink(clips, 64) is clips


def test_half_of_the_clips_are_degraded_and_none_is_mirrored_unasked() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((64, 2, 16, 16, 3), 128, dtype=torch.uint8)
    degraded = (_augment(flat, False, generator) != flat).flatten(1).any(1)
    assert 20 < degraded.sum() < 44
    rising = flat * torch.linspace(0, 1.9, 16)[:, None]
    for flip, low, high in ((False, 64, 64), (True, 20, 44)):
        clips = _augment(rising.to(torch.uint8), flip, generator).float()
        right, left = clips[..., -4:, :].flatten(1).mean(1), clips[..., :4, :].flatten(1).mean(1)
        assert low <= (right > left).sum() <= high


def test_labels_that_do_not_fit_are_refused() -> None:
    clips, labels = moving_squares(1, seed=0)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        train_classifier(clips, labels, num_classes=3)
    with pytest.raises(ValueError, match="one label"):
        train_classifier(clips, labels[:2], num_classes=4)
    with pytest.raises(ValueError, match="uint8"):
        train_classifier(clips.float(), labels, num_classes=4)


def test_a_row_of_the_confusion_is_a_class_asked_for() -> None:
    value, confusion = recognised([(torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0]))], 3)
    assert value == pytest.approx(2 / 3) and confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
