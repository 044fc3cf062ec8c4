"""The page in a real browser (headless Chromium), and what it does without one."""

import shutil
import time

import cv2
import numpy as np
import pytest

from autoseg.io import Image, read_image, read_label, write_image
from autoseg.prediction.corrections import ERASE, apply_strokes, class_colours, save_case, tint_mask
from autoseg.prediction.predictor import Predictor
from autoseg.prediction.review_app import Session
from autoseg.schema.dataset import DatasetSpec, label_scheme
from autoseg.support.errors import AutosegError
from autoseg.support.workspace import Dataset
from tests.prediction.stand_in import Bright, picture, trained

TWO = label_scheme({"background": 0, "polyp": 1, "stone": 2}, None)


def test_strokes_add_change_and_take_away():
    labels = np.zeros((20, 30), np.uint8)
    labels[2:8, 2:9], labels[10:15, 10:20] = 1, 2
    assert np.array_equal(apply_strokes(labels, [], TWO), labels)
    strokes = np.zeros((20, 30, 4), np.uint8)
    strokes[0:4, 20:25] = (*class_colours(TWO)["stone"][1], 255)
    strokes[2:4, 2:9] = (*ERASE, 255)
    strokes[10:15, 10:12] = (*class_colours(TWO)["polyp"][1], 200)
    edited = apply_strokes(labels, [strokes], TWO)
    assert (edited[0:4, 20:25] == 2).all() and not edited[2:4, :19].any() and (edited[4:8, 2:9] == 1).all()
    assert (edited[10:15, 10:12] == 1).all() and (edited[10:15, 12:20] == 2).all()
    larger = np.repeat(np.repeat(strokes, 2, 0), 2, 1)
    assert np.array_equal(apply_strokes(labels, [larger], TWO), edited)
    gray = np.full((20, 30, 3), 60, np.uint8)
    shown = tint_mask(gray, labels, TWO)
    assert (shown[labels == 0] == 60).all() and not (shown[labels > 0] == 60).all(axis=1).any()


def test_corrections_become_cases(tmp_path):
    image, mask = picture()
    assert (
        save_case(Image(array=image, spacing=None), mask, "reviewed_1", tmp_path / "c")
        == tmp_path / "c" / "masks" / "reviewed_1.png"
    )
    assert np.array_equal(read_image(tmp_path / "c" / "images" / "reviewed_1.png").array, image)
    dataset = Dataset(tmp_path, "Dataset501_Tiny")
    dataset.raw.mkdir(parents=True)
    spec = '{"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "bright": 1}, "numTraining": 4, '
    dataset.description.write_text(spec + '"file_ending": ".png"}')
    for _ in range(2):
        save_case(Image(array=image[:1], spacing=None), mask, "reviewed_1", dataset)
    assert read_image(dataset.raw / "imagesTr" / "reviewed_1_0000.png").array.shape[0] == 3
    assert np.array_equal(read_label(dataset.raw / "labelsTr" / "reviewed_1.png").array, mask)
    assert '"numTraining": 5' in dataset.description.read_text()
    dataset.description.write_text(spec + '"file_ending": ".jpg"}')
    with pytest.raises(AutosegError, match="stores images as .jpg"):
        save_case(Image(array=image, spacing=None), mask, "reviewed_2", dataset)


@pytest.fixture
def session(tmp_path):
    spec = DatasetSpec(
        channel_names={"0": "R", "1": "G", "2": "B"}, labels={"background": 0, "bright": 1}, numTraining=4, file_ending=".png"
    )
    networks = {"usual": lambda: Predictor([trained(spec=spec)]), "blind": lambda: Predictor([trained(Bright(0.99))])}
    write_image(tmp_path / "image.png", picture((120, 160), (30, 40, 90, 120))[0])
    return Session(networks, tmp_path / "corrected")


def test_a_session_predicts_and_saves(session, tmp_path):
    overlay, editor, summary, labels = session.predict(str(tmp_path / "image.png"), "usual")
    assert "| score | 1.00, not calibrated: needs 10 out-of-fold cases |" in summary and "confidence" not in summary
    assert overlay.ndim == 3 and "| bright |" in summary and "warning" not in summary
    assert "nothing was found" in session.predict(str(tmp_path / "image.png"), "blind")[2]
    assert "0 of the mask's pixels changed" in session.save(str(tmp_path / "image.png"), "usual", editor, labels)
    (mask,) = (tmp_path / "corrected" / "masks").iterdir()
    assert (read_label(mask).array == picture((120, 160), (30, 40, 90, 120))[1]).mean() > 0.98


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("the page did not get there")


def blue(png):
    """Pixels that the mask's layer tints: the image itself is gray."""
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return int((shown[..., 0] - shown[..., 2] > 40).sum())


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1500"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.slow
def test_in_a_browser(session, browser, tmp_path):
    pytest.importorskip("gradio")
    webdriver = pytest.importorskip("selenium.webdriver")
    from autoseg.prediction.review_app import build
    from autoseg.prediction.review_server import ReviewServer

    with ReviewServer(lambda: build(session)) as server:
        server.start()
        browser.get(server.address)
        element = wait_for(lambda: browser.find_elements("css selector", "#image input[type=file]"))[0]
        element.send_keys(str(tmp_path / "image.png"))
        text = wait_for(lambda: "score" in (t := browser.find_element("id", "summary").text) and t)
        assert "bright" in text and "pixels" in text
        wait_for(lambda: browser.find_elements("css selector", "#overlay img"))
        wait_for(lambda: browser.find_elements("css selector", "#editor canvas"))
        wait_for(lambda: blue(browser.find_element("id", "editor").screenshot_as_png) > 2000)
        browser.save_screenshot(str(tmp_path / "page.png"))
        # A stroke from the middle of the picture, which is inside the mask, to the left and out of it.
        canvas = browser.find_elements("css selector", "#editor canvas")[0]
        stroke = webdriver.ActionChains(browser).move_to_element(canvas).click_and_hold()
        for _ in range(6):
            stroke.move_by_offset(-20, 0)
        stroke.release().perform()
        time.sleep(1)
        browser.save_screenshot(str(tmp_path / "painted.png"))
        browser.find_element("id", "save").click()
        wait_for(lambda: "saved as" in browser.find_element("id", "note").text)
        (mask,) = (tmp_path / "corrected" / "masks").iterdir()
        saved, before = read_label(mask).array, picture((120, 160), (30, 40, 90, 120))[1]
        assert (saved[before > 0] > 0).mean() > 0.98, "the predicted mask must still be there"
        assert 20 < (saved[before == 0] > 0).sum() < 3000, "the stroke must be there"
