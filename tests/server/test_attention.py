"""``fedcxr-server attention``: from a run's checkpoint, or released weights, and a film to a panel and its numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from models.attention import Comparison
from server.attention import Look, Unusable, half_level, open_viewer, read_film, where
from server.cli import app
from server.panel import draw, heated, signed
from tests.world import federate

runner = CliRunner()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module", params=["vit", "resnet50"])
def run(request, tmp_path_factory, tiny_store):
    towers = {
        "vit": {"name": "vit", "image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2, "pool": "mean"},
        "resnet50": {"name": "resnet50", "image_size": 32, "base": 8, "norm": "group", "acm": {"groups": 4}},
    }
    vision = towers[request.param]
    return request.param, federate(
        tmp_path_factory.mktemp(request.param),
        tiny_store,
        model__vision=vision,
        phases__0__local={"steps": 3, "batch_size": 16, "lr": 0.01},
    )


def ask(*words) -> tuple[int, dict]:
    done = runner.invoke(app, ["attention", *map(str, words), "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_a_runs_checkpoint_and_a_film_give_a_panel_and_its_numbers(run, film, tmp_path):
    kind, folder = run
    out = tmp_path / "panel.png"
    code, said = ask("--checkpoint", folder.path, "--image", film, "--out", out)
    assert code == 0 and said["panel"] == str(out) and said["model"] == "Run tiny, round 2" and said["size"] == 32
    assert set(said["findings"]) == {"Cardiomegaly", "Edema"} and all(0 < v < 1 for v in said["findings"].values())
    if kind == "vit":
        assert said["grid"] == [4, 4] and [h["head"] for h in said["heads"]] == [1, 2] and said["acm"] == []
    else:
        assert said["heads"] == [] and [a["block"] for a in said["acm"]][::15] == ["layer1.0", "layer4.2"]
        assert len(said["acm"]) == 16 and all(0 <= a["difference"] <= 1 for a in said["acm"])
    with Image.open(out) as panel:
        assert panel.format == "PNG" and panel.mode == "RGB" and 1000 < panel.width < 1400 and panel.height > 300
        assert len(np.unique(np.asarray(panel).reshape(-1, 3), axis=0)) > 500


def test_an_earlier_checkpoint_can_be_named_by_folder_or_file(run, film, tmp_path):
    _, folder = run
    first, last = folder.checkpoints()
    answers = [
        ask("--checkpoint", path, "--image", film, "--out", tmp_path / "p.png")[1]
        for path in (first, first / "model.safetensors", last, folder.path)
    ]
    assert answers[0] == answers[1] != answers[2] == answers[3]
    assert answers[0]["model"] == "Run tiny, round 1"


def test_it_scores_a_film_as_the_run_does(run, film):
    """The same numbers as the objective gives for the film at the run's size."""
    _, folder = run
    from models.checkpoint import load
    from models.config import build
    from strategies.plan import RunConfig

    plan = build(RunConfig, folder.about["config"])
    model = plan.new_model()
    model.load(None, load(folder.checkpoints()[-1] / "model.safetensors"))
    viewer = open_viewer(folder.path)
    batch = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        want = plan.phases[0].objective.build().logits(model.eval(), batch).sigmoid()[0]
    assert list(viewer.scores(batch).values()) == pytest.approx(want.tolist())


def test_released_weights_are_shown_too(film, tmp_path):
    torch.manual_seed(0)
    from models.vision import vit

    ours = vit.Config(image_size=32, patch=8, channels=3, width=64, depth=1, heads=1, positions="learned").build()
    renamed = {"patch_embed.": "patch_embed.proj.", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        state[name] = value
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 64), state["pos_embed"]], 1)
    torch.save({"teacher": state, "student": state}, tmp_path / "w.pth")
    words = ("--checkpoint", tmp_path / "w.pth", "--image", film, "--out", tmp_path / "p.png")
    code, said = ask(*words, "--part", "teacher", "--size", 48)
    assert code == 0 and said["grid"] == [6, 6] and said["findings"] == {} and said["model"] == "w.pth"
    code, said = ask(*words)
    assert code == 2 and "holds student, teacher" in said["error"]
    code, said = ask(*words, "--part", "teacher", "--size", 50)
    assert code == 2 and "multiple of the patch" in said["error"]
    code, said = ask(*words, "--part", "teacher", "--normalise", "cxr")
    assert code == 2 and "none or imagenet" in said["error"]


def test_what_cannot_be_shown_exits_2_in_words(run, film, tmp_path):
    _, folder = run
    (tmp_path / "film.dcm").write_bytes(b"\x00" * 128 + b"DICM" + b"\x00" * 100)
    (tmp_path / "empty").mkdir()
    cases = [
        (("--checkpoint", tmp_path / "none", "--image", film), "no such file"),
        (("--checkpoint", tmp_path / "empty", "--image", film), "neither a run folder nor"),
        (("--checkpoint", folder.path, "--image", tmp_path / "none.png"), "cannot be read"),
        (("--checkpoint", folder.path, "--image", tmp_path / "film.dcm"), "export a DICOM film as PNG"),
        (("--checkpoint", folder.path, "--image", film, "--out", tmp_path / "none" / "p.png"), "cannot be written"),
        (("--checkpoint", folder.path / "checkpoints" / "round-0009", "--image", film), "no such checkpoint"),
    ]
    for words, said in cases:
        code, answer = ask(*words)
        assert code == 2 and said in answer["error"], words
    assert "--checkpoint" in runner.invoke(app, ["attention", "--help"]).stdout


def test_a_resnet_without_acm_is_refused(film, tmp_path):
    from models.config import build
    from models.vision import resnet50

    tower = build(resnet50.Config, {"base": 8, "channels": 3}).build()
    torch.save(tower.state_dict(), tmp_path / "plain.pth")
    code, said = ask("--checkpoint", tmp_path / "plain.pth", "--image", film, "--out", tmp_path / "p.png")
    assert code == 2 and "a resnet50 without acm attends to nothing" in said["error"]


def test_a_run_that_lost_its_weights_or_its_plan_says_which(run, film, tmp_path):
    import shutil

    _, folder = run
    broken = tmp_path / "run"
    shutil.copytree(folder.path, broken)
    (broken / "checkpoints" / "round-0002" / "model.safetensors").write_bytes(b"\x00")
    code, said = ask("--checkpoint", broken, "--image", film)
    assert code == 2 and "not a whole safetensors file" in said["error"]
    (broken / "run.yaml").write_text("name: x\n")
    code, said = ask("--checkpoint", broken, "--image", film)
    assert code == 2 and "run.yaml does not describe the model" in said["error"]
    shutil.rmtree(broken / "checkpoints")
    code, said = ask("--checkpoint", broken, "--image", film)
    assert code == 2 and "no checkpoint yet" in said["error"]


# -- films -----------------------------------------------------------------------------------------------------------


def test_films_of_every_depth_are_read_upright_and_grey(tmp_path):
    x = np.tile(np.arange(30), (20, 1))
    grey = (8 * x).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "colour.png")
    Image.fromarray((1000 + 100 * x).astype(np.uint16)).save(tmp_path / "deep.png")
    turned = Image.fromarray(grey.T[::-1].copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=98)
    assert np.array_equal(read_film(tmp_path / "grey.png"), grey)
    assert np.array_equal(read_film(tmp_path / "colour.png"), grey)
    deep = read_film(tmp_path / "deep.png")
    assert (
        deep.dtype == np.uint8 and deep[0, 0] == 0 and deep[0, -1] == 255 and np.all(np.diff(deep[0].astype(int)) > 0)
    )
    turned_back = read_film(tmp_path / "turned.jpg")
    assert turned_back.shape == (20, 30) and np.abs(turned_back.astype(int) - grey).max() < 12


def test_films_too_large_too_small_or_broken_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    import server.attention as attention

    Image.fromarray(np.zeros((8, 40), np.uint8)).save(tmp_path / "thin.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "film.png")
    whole = (tmp_path / "film.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "film.gif")
    for name, said in (("thin.png", "8 pixels"), ("half.png", "not a whole PNG"), ("film.gif", "not a whole PNG")):
        with pytest.raises(Unusable, match=said):
            read_film(tmp_path / name)
    monkeypatch.setattr(attention, "MAX_PIXELS", 4000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(Unusable, match="at most 4,000 in all"):
        read_film(tmp_path / "film.png")
    monkeypatch.setattr(attention, "MAX_BYTES", 10)
    with pytest.raises(Unusable, match="more than 0 MB"):
        read_film(tmp_path / "film.png")


# -- maps and colours ------------------------------------------------------------------------------------------------


def test_half_of_an_even_map_is_half_of_the_film_and_of_one_spot_is_half_of_that_spot():
    assert half_level(np.ones((4, 5)))[1] == pytest.approx(0.5)
    spot = np.zeros((4, 5))
    spot[3, 4] = 20
    assert half_level(spot) == (20.0, pytest.approx(0.5 / 20))
    rng = np.random.default_rng(0)
    many = rng.gamma(0.5, 1, (50, 50))
    level, area = half_level(many)
    above = many > level
    assert many[above].sum() <= 0.5 * many.sum() <= many[many >= level].sum()
    assert above.mean() <= area <= (many >= level).mean()


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "upper left"),
        (1, 1, "middle centre"),
        (2, 2, "lower right"),
        (2, 0, "lower left"),
        (0, 1, "upper centre"),
    ],
)
def test_places_have_words(row, column, words):
    grid = np.full((3, 3), 0.5)
    grid[row, column] = 5.0
    found = where(grid)
    assert found["where"] == words and found["peak"] == 5.0
    assert (found["row"], found["column"]) == (
        pytest.approx((row + 0.5) / 3, abs=1e-4),
        pytest.approx((column + 0.5) / 3, abs=1e-4),
    )


def test_colour_stands_only_where_attention_is_more_than_even():
    film = np.full((60, 60), 100, np.uint8)
    grey = np.repeat(film[..., None], 3, 2)
    assert np.array_equal(heated(film, np.ones((6, 6))), grey)
    spot = np.full((6, 6), 0.2)
    spot[1, 4] = 29.0
    shown = heated(film, spot).astype(int)
    assert np.array_equal(shown[40:, :30], grey[40:, :30])
    red, _, blue = shown[15, 45]
    assert red - blue > 60  # the middle of the spot is warm
    assert (shown.min(-1) > 200).sum() > 8  # and a white line runs around it


def test_difference_is_warm_above_and_cool_below():
    film = np.full((60, 60), 100, np.uint8)
    grid = np.zeros((6, 6))
    grid[1, 1], grid[4, 4] = 3.0, -3.0
    shown = signed(film, grid, 3.0).astype(int)
    assert shown[15, 15, 0] - shown[15, 15, 2] > 60 and shown[45, 45, 2] - shown[45, 45, 0] > 60
    assert np.array_equal(shown[0, 59], [100, 100, 100])
    assert np.array_equal(signed(film, np.zeros((6, 6)), 1.0), np.repeat(film[..., None], 3, 2))


def look(heads=None, compared=(), scores=None) -> Look:
    film = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    return Look("model", film, scores or {}, heads, False, list(compared))


@pytest.mark.parametrize("count", [1, 3, 6, 16])
def test_a_panel_holds_every_head(count):
    """Each head is a tile of its own: as many rows of four as film, mean and heads need."""
    rng = np.random.default_rng(1)
    one, this = (draw(look(rng.gamma(0.3, 1, (n, 7, 7)) + 1e-3)) for n in (1, count))
    rows = -(-(count + 2) // 4)
    assert this.width == one.width and this.height - one.height == (rows - 1) * (300 + 51)


def test_a_panel_holds_every_block(tmp_path):
    ones = torch.ones(5, 5)
    blocks = [Comparison(f"layer1.{i}", ones, ones, 0.0) for i in range(5)]
    one, five = draw(look(compared=blocks[:1])), draw(look(compared=blocks, scores={"Edema": 0.4}))
    assert five.width == one.width and five.height - one.height == 2 * (176 + 51) + 24
